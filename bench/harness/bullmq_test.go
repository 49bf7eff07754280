package harness

import (
	"bytes"
	"os"
	"testing"
)

func TestBullMQ(t *testing.T) {
	err := Run(t.Context(), "case", Programs{BullMQ: "../peer/bullmq"}, func(b *Bench) {
		q := InstallBullMQ(b)
		r, s := StartRedis(b, MemoryOnly), StartSink(b, 0)
		const mails = 1001 // more than one call adds
		q.Fill(b, r, mails, `{"from": "a@example.com", "subject": "Hello", "body": "text\n"}`)
		p, release := q.Work(b, r, s, 2, 20)
		if got := s.Taken(); got != 0 {
			t.Errorf("%d mails were sent before they were to be", got)
		}
		release()
		p.await(b, func() bool { return s.Taken() >= mails })
		if got := s.Taken(); got != mails {
			t.Errorf("%d mails taken, want %d", got, mails)
		}
	})
	skipOrFail(t, err)
}

func TestInstallBullMQ_noNode(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := Run(t.Context(), "case", Programs{BullMQ: "../peer/bullmq"}, func(b *Bench) { InstallBullMQ(b) })
	if err == nil || err.Error() != "skipped: Node.js is not installed (Debian: apt-get install nodejs npm)" {
		t.Errorf("error %v", err)
	}
}

// The lock file names no registry: npm asks the one that is set up.
func TestBullMQ_lock(t *testing.T) {
	lock, err := os.ReadFile("../peer/bullmq/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, not := range []string{`"resolved"`, "registry"} {
		if bytes.Contains(lock, []byte(not)) {
			t.Errorf("the lock file has %s", not)
		}
	}
	for _, want := range []string{`"integrity"`, "node_modules/bullmq", "node_modules/nodemailer"} {
		if !bytes.Contains(lock, []byte(want)) {
			t.Errorf("the lock file lacks %s", want)
		}
	}
}
