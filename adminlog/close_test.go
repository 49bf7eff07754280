package adminlog

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

func TestWriter_Close_flushes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeMailer{}
		w, log := start(t, Config{Mailer: f})
		log.Error().Msg("x")
		began := time.Now()
		if err := w.Close(); err != nil || time.Since(began) != 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		wantSubjects(t, f, "ERROR: x")
		log.Error().Msg("too late")
		if w.mu.Lock(); len(w.lines) != 0 {
			t.Error("a line is kept that nobody will mail")
		}
		w.mu.Unlock()
		if err := w.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
		later(time.Hour)
		wantSubjects(t, f, "ERROR: x")
	})
}

// A fatal line ends the program, so it is mailed even if it comes while a mail is on its way.
func TestWriter_fatal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeMailer{before: func(context.Context, int) bool { pass(5 * time.Second); return true }}
		w, log := start(t, Config{Mailer: f})
		log.Error().Msg("x")
		later(2 * time.Second)
		log.Error().Msg("y")
		log.WithLevel(zerolog.FatalLevel).Msg("the end")
		if err := w.Close(); err != nil { // as zerolog does
			t.Error(err)
		}
		wantSubjects(t, f, "ERROR: x", "FATAL: the end (and 1 more)")
	})
}

// The limit holds to the end: a program that is started again and again is no mail gun.
func TestWriter_Close_limit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeMailer{}
		w, log := start(t, Config{Mailer: f, Burst: 1})
		log.Error().Msg("x")
		later(time.Minute)
		log.Error().Msg("y")
		later(time.Minute)
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		wantSubjects(t, f, "ERROR: x")
	})
}

func TestWriter_Close_timeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeMailer{before: func(ctx context.Context, _ int) bool { <-ctx.Done(); return false }}
		w, err := New(Config{Mailer: f, CloseTimeout: 3 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		log := zerolog.New(w)
		log.Error().Msg("x")
		later(2 * time.Second)
		log.WithLevel(zerolog.FatalLevel).Msg("y")
		began := time.Now()
		err = w.Close()
		if err == nil || !strings.Contains(err.Error(), "on its way after 3s") || time.Since(began) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		synctest.Wait()
		select {
		case <-w.done:
		default:
			t.Error("the mail on its way was not told to stop")
		}
		if f.tried() != 1 {
			t.Errorf("%d mails were tried, want 1: time was up", f.tried())
		}
	})
}

func TestWriter_concurrent(t *testing.T) {
	t.Parallel()
	f := &fakeMailer{}
	w, log := start(t, Config{Mailer: f, Delay: time.Nanosecond, Limit: 1_000_000, Burst: 1000})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				log.Error().Msg("x")
			}
		})
	}
	wg.Go(func() { _ = w.Close() })
	wg.Wait()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}
