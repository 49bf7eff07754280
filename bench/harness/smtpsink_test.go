package harness

import (
	"errors"
	"net/smtp"
	"testing"
)

func TestSMTPSink(t *testing.T) {
	err := Run(t.Context(), "case", Programs{}, func(b *Bench) {
		s := StartSMTPSink(b)
		if got := s.Taken(); got != 0 {
			t.Errorf("%d mails taken before there was one", got)
		}
		const mails = 12
		for range mails {
			b.Check(smtp.SendMail(s.Addr(), nil, "a@example.com", []string{"b@example.com"}, []byte("text\r\n")))
		}
		s.process.await(b, func() bool { return s.Taken() >= mails })
		if got := s.Taken(); got != mails {
			t.Errorf("%d mails taken, want %d", got, mails)
		}
		if s.CPU(b) <= 0 {
			t.Error("it took no processor time")
		}
	})
	skipOrFail(t, err)
}

// skipOrFail ends a test of what is not installed everywhere.
func skipOrFail(t *testing.T, err error) {
	t.Helper()
	var skipped *SkippedError
	if errors.As(err, &skipped) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestLastCount(t *testing.T) {
	for said, want := range map[string]int{
		"": 0, "sess=1 quit=0 mesg=7": 0, "sess=1 quit=0 mesg=7\r": 7, "q=0 mesg=9\rsess=1 quit=0 mesg=10\rsess=1 quit=0 mesg=1": 10, "garbage\r": 0,
		"sess=1 quit=0 mesg=12\r\n": 12,
	} {
		if got := lastCount(said); got != want {
			t.Errorf("%q: %d, want %d", said, got, want)
		}
	}
}

func TestFindPostfix(t *testing.T) {
	err := Run(t.Context(), "case", Programs{}, func(b *Bench) { FindPostfix(b, "smtp-nothing") })
	if err == nil || err.Error() != "skipped: smtp-nothing is not installed (Debian: apt-get install postfix)" {
		t.Errorf("error %v", err)
	}
}
