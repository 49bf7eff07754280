package adminlog

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// start returns a Writer and a logger that writes to it. The Writer is closed when the
// test ends.
func start(t *testing.T, cfg Config) (*Writer, zerolog.Logger) {
	t.Helper()
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w, zerolog.New(zerolog.MultiLevelWriter(io.Discard, w))
}

// pass lets time pass in a bubble, where that takes none.
func pass(d time.Duration) { <-time.After(d) }

// later lets time pass and everything happen that is to happen by then.
func later(d time.Duration) {
	pass(d)
	synctest.Wait()
}

func wantSubjects(t *testing.T, f *fakeMailer, want ...string) {
	t.Helper()
	if got := f.subjects(); !slices.Equal(got, want) {
		t.Errorf("mails %q, want %q", got, want)
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		cfg  Config
		want string
	}{
		{"no mailer", Config{}, "Config.Mailer is required"},
		{"trace", Config{Mailer: &fakeMailer{}, Level: zerolog.TraceLevel}, `"trace" is not a level`},
		{"disabled", Config{Mailer: &fakeMailer{}, Level: zerolog.Disabled}, `"disabled" is not a level`},
		{"no level", Config{Mailer: &fakeMailer{}, Level: zerolog.NoLevel}, "is not a level"},
		{"limit", Config{Mailer: &fakeMailer{}, Limit: -1}, "negative"},
		{"period", Config{Mailer: &fakeMailer{}, Period: -1}, "negative"},
		{"burst", Config{Mailer: &fakeMailer{}, Burst: -1}, "negative"},
		{"delay", Config{Mailer: &fakeMailer{}, Delay: -1}, "negative"},
		{"lines", Config{Mailer: &fakeMailer{}, MaxLines: -1}, "negative"},
		{"timeout", Config{Mailer: &fakeMailer{}, Timeout: -1}, "negative"},
		{"close timeout", Config{Mailer: &fakeMailer{}, CloseTimeout: -1}, "negative"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := New(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestWriter_levels(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		level zerolog.Level
		want  []string
	}{
		{"default", 0, []string{"error", "panic"}},
		{"info", zerolog.InfoLevel, []string{"info", "warn", "error", "panic"}},
		{"warn", zerolog.WarnLevel, []string{"warn", "error", "panic"}},
		{"panic", zerolog.PanicLevel, []string{"panic"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeMailer{}
				_, log := start(t, Config{Mailer: f, Level: tt.level, Burst: 10})
				var want []string
				for _, name := range []string{"trace", "debug", "info", "warn", "error", "panic", ""} {
					level, err := zerolog.ParseLevel(name)
					if err != nil {
						t.Fatal(err)
					}
					log.WithLevel(level).Msg("x")
					later(time.Minute)
					if slices.Contains(tt.want, name) {
						want = append(want, strings.ToUpper(name)+": x")
					}
				}
				wantSubjects(t, f, want...)
			})
		})
	}
}

// A writer that hands on no level, such as an io.MultiWriter, has it in the line.
func TestWriter_Write(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, line string
		want       []string
	}{
		{"error", `{"level":"error","message":"x"}` + "\n", []string{"ERROR: x"}},
		{"capitals", `{"message":"x","level":"ERROR"}`, []string{"ERROR: x"}},
		{"warning", `{"level":"warn","message":"x"}`, nil},
		{"no level", `{"message":"x"}`, nil},
		{"unknown level", `{"level":"loud","message":"x"}`, nil},
		{"no JSON", `error: x`, nil},
		{"empty", ``, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeMailer{}
				w, _ := start(t, Config{Mailer: f})
				if n, err := io.WriteString(io.MultiWriter(w), tt.line); n != len(tt.line) || err != nil {
					t.Errorf("wrote %d, %v", n, err)
				}
				later(time.Minute)
				wantSubjects(t, f, tt.want...)
			})
		})
	}
}

func TestWriter_options(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var left time.Duration
		f := &fakeMailer{before: func(ctx context.Context, _ int) bool {
			deadline, _ := ctx.Deadline()
			left = time.Until(deadline)
			return true
		}}
		_, log := start(t, Config{Mailer: f, Timeout: 7 * time.Second})
		log.Error().Msg("x")
		later(time.Minute)
		if o := f.opts[0]; !o.FailSilently || o.HTMLMessage != "" || o.Backend != nil || left != 7*time.Second {
			t.Errorf("options %+v, %v to go", o, left)
		}
	})
}

// What belongs together comes together, the gravest first.
func TestWriter_one_mail_for_one_trouble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeMailer{}
		_, log := start(t, Config{Mailer: f, Delay: 2 * time.Second})
		log.Error().Msg("first")
		later(time.Second)
		log.WithLevel(zerolog.PanicLevel).Msg("second")
		log.Error().Msg("third")
		later(time.Second - 1)
		wantSubjects(t, f)
		later(1)
		wantSubjects(t, f, "PANIC: second (and 2 more)")
		body := f.last(t).body
		second, first, third := strings.Index(body, "PANIC: second"), strings.Index(body, "ERROR: first"), strings.Index(body, "ERROR: third")
		if second != 0 || first < second || third < first {
			t.Errorf("not in order:\n%s", body)
		}
	})
}

func TestWriter_limit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeMailer{}
		_, log := start(t, Config{Mailer: f, Limit: 6, Period: time.Hour, Burst: 3, MaxLines: 4})
		began := time.Now()
		for i := range 3 {
			log.Error().Int("n", i).Msg("burst")
			later(10 * time.Second)
		}
		wantSubjects(t, f, "ERROR: burst", "ERROR: burst", "ERROR: burst")

		for range 9 {
			log.Error().Msg("over")
			later(10 * time.Second)
		}
		if f.tried() != 3 {
			t.Fatalf("%d mails within two minutes, want 3", f.tried())
		}
		// The first token came back ten minutes after the first mail, which went after a second.
		later(time.Until(began.Add(10*time.Minute + time.Second)))
		wantSubjects(t, f, "ERROR: burst", "ERROR: burst", "ERROR: burst", "ERROR: over (and 8 more)")
		if body := f.last(t).body; strings.Count(body, "ERROR: over") != 4 || !strings.Contains(body, "left out since the last mail: 5.") {
			t.Errorf("4 lines and 5 left out are expected:\n%s", body)
		}

		later(time.Hour) // nothing is told twice
		log.Error().Msg("calm again")
		later(time.Minute)
		if got := f.last(t); got.subject != "ERROR: calm again" || strings.Contains(got.body, "left out") {
			t.Errorf("%q\n%s", got.subject, got.body)
		}
	})
}

// However much goes wrong, in no day are there more mails than the limit says.
func TestWriter_limit_of_a_day(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeMailer{}
		_, log := start(t, Config{Mailer: f})
		for range 24 * 60 {
			log.Error().Msg("x")
			later(time.Minute)
		}
		if got, most := f.tried(), 5+24*10; got > most || got < most-1 {
			t.Errorf("%d mails, want %d", got, most)
		}
	})
}

// Of too many lines the least important are left out: those that cause no mail, then
// those of a lower level.
func TestWriter_too_many_lines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log zerolog.Logger
		f := &fakeMailer{before: func(_ context.Context, tries int) bool {
			if tries == 1 {
				for range 5 {
					log.Error().Msg("ours")
				}
			}
			return true
		}}
		_, log = start(t, Config{Mailer: f, MaxLines: 3})
		log.Error().Msg("x")
		later(time.Minute)
		log.Error().Msg("a")
		log.Error().Msg("b")
		log.Error().Msg("c")
		log.Error().Msg("d")
		log.WithLevel(zerolog.PanicLevel).Msg("e")
		later(time.Minute)
		body := f.last(t).body
		for _, title := range []string{"PANIC: e", "ERROR: a", "ERROR: b"} {
			if !strings.Contains(body, title) {
				t.Errorf("no %s", title)
			}
		}
		if strings.Contains(body, "ours") || !strings.Contains(body, "left out since the last mail: 7.") || f.last(t).subject != "PANIC: e (and 9 more)" {
			t.Errorf("%q\n%s", f.last(t).subject, body)
		}
	})
}

// What the sending logs, in whatever goroutine, during it or just after it, causes no
// mail, and stands in the next one.
func TestWriter_never_through_itself(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		log  func(log func())
	}{
		{"same goroutine", func(log func()) { log() }},
		{"another goroutine, during", func(log func()) {
			done := make(chan struct{})
			go func() { defer close(done); log() }()
			<-done
		}},
		{"another goroutine, after", func(log func()) { time.AfterFunc(time.Second-1, log) }},
	}
	for _, tt := range tests {
		for _, works := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, relay works: %t", tt.name, works), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var log zerolog.Logger
					f := &fakeMailer{}
					f.before = func(_ context.Context, tries int) bool {
						if tries == 1 {
							tt.log(func() { log.Error().Msg("relay trouble") })
						}
						return works || tries > 1
					}
					_, log = start(t, Config{Mailer: f})
					log.Error().Msg("x")
					later(48 * time.Hour)
					if f.tried() != 1 {
						t.Fatalf("%d mails were tried, want 1", f.tried())
					}
					log.Error().Msg("y")
					later(time.Minute)
					body := f.last(t).body
					if f.tried() != 2 || !strings.HasPrefix(body, "ERROR: y\n") || !strings.Contains(body, "ERROR: relay trouble\n") {
						t.Errorf("%d mails, the last:\n%s", f.tried(), body)
					}
					if lost := strings.Contains(body, "left out since the last mail: 1."); lost == works {
						t.Errorf("the line of a mail that was not sent has to be counted, and no other:\n%s", body)
					}
				})
			})
		}
	}
}

// With a relay that is down for a day and errors all day long, there are as many tries as
// there would be mails.
func TestWriter_relay_down(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log zerolog.Logger
		f := &fakeMailer{before: func(ctx context.Context, _ int) bool {
			<-ctx.Done() // a black hole
			log.Error().AnErr("error", ctx.Err()).Msg("relay down")
			return false
		}}
		_, log = start(t, Config{Mailer: f})
		for range 24 * 60 {
			log.Error().Msg("x")
			later(time.Minute)
		}
		if got, most := f.tried(), 5+24*10; got > most || got < most/2 {
			t.Errorf("%d tries, want %d at most", got, most)
		}
	})
}

// Logging does not wait for mail, however long it takes.
func TestWriter_never_blocks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		f := &fakeMailer{before: func(context.Context, int) bool { <-release; return true }}
		w, log := start(t, Config{Mailer: f})
		log.Error().Msg("x")
		later(time.Minute)
		began := time.Now()
		for range 10_000 {
			log.Error().Msg("x")
		}
		if took := time.Since(began); took != 0 { // the bubble's clock moves when all wait
			t.Errorf("logging waited for %v", took)
		}
		w.mu.Lock()
		if len(w.lines) != 50 || w.leftOut != 9_950 {
			t.Errorf("%d lines are kept, %d left out", len(w.lines), w.leftOut)
		}
		w.mu.Unlock()
		close(release)
	})
}

func TestWriter_panics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeMailer{before: func(_ context.Context, tries int) bool {
			if tries == 1 {
				panic("mailer")
			}
			return true
		}}
		calls := 0
		redact := func(string) bool {
			if calls++; calls == 1 {
				panic("redact")
			}
			return false
		}
		_, log := start(t, Config{Mailer: f, Redact: redact})
		for _, text := range []string{"a", "b", "c"} {
			log.Error().Msg(text)
			later(time.Minute)
		}
		wantSubjects(t, f, "ERROR: c (and 2 more)")
	})
}
