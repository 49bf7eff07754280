package harness

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// BullMQ is BullMQ and Nodemailer, run by Node.js.
type BullMQ struct{ node, script string }

// bullMQFiles are what it is made of. The lock file pins all that npm installs.
var bullMQFiles = []string{"package.json", "package-lock.json", "peer.js"}

// InstallBullMQ installs them where that has not been done yet: in a directory of the
// user's cache, so that the tree stays as it is. The measurement is skipped where Node.js
// is not installed or npm reaches no registry.
func InstallBullMQ(b *Bench) BullMQ {
	b.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		b.Skip("Node.js is not installed (Debian: apt-get install nodejs npm)")
	}
	sum := sha256.New()
	files := map[string][]byte{}
	for _, name := range bullMQFiles {
		files[name], err = os.ReadFile(filepath.Join(b.Programs.BullMQ, name)) //nolint:gosec // files of our own
		b.Check(err)
		sum.Write(files[name])
	}
	cache, err := os.UserCacheDir()
	b.Check(err)
	dir := filepath.Join(cache, "mailpouch", fmt.Sprintf("bullmq-%x", sum.Sum(nil)[:8]))
	if _, err := os.Stat(dir); err != nil {
		install(b, dir, files)
	}
	return BullMQ{node, filepath.Join(dir, "peer.js")}
}

// install makes dir when all that belongs into it is there.
func install(b *Bench, dir string, files map[string][]byte) {
	b.Helper()
	b.Check(os.MkdirAll(filepath.Dir(dir), 0o755)) //nolint:gosec // a cache
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "bullmq-")
	b.Check(err)
	b.Cleanup(func() { _ = os.RemoveAll(tmp) })
	for name, data := range files {
		b.Check(os.WriteFile(filepath.Join(tmp, name), data, 0o600))
	}
	npm := exec.CommandContext(b.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	npm.Dir = tmp
	if out, err := npm.CombinedOutput(); err != nil {
		first, _, _ := bytes.Cut(bytes.TrimSpace(out), []byte("\n"))
		b.Skipf("npm ci: %v: %s", err, first)
	}
	b.Check(os.Rename(tmp, dir))
}

// Fill adds jobs for mails, which mail is the model of.
func (q BullMQ) Fill(b *Bench, r *Redis, mails int, mail string) {
	b.Helper()
	Start(b, q.node, []string{q.script, "fill", r.URL, fmt.Sprint(mails), mail}).Wait(b)
}

// startSignal is what its worker waits for.
const startSignal = syscall.SIGUSR2

// Work starts a worker, which does nothing until release is called.
func (q BullMQ) Work(b *Bench, r *Redis, s MailServer, connections, concurrency int) (p *Process, release func()) {
	b.Helper()
	p = Start(b, q.node, []string{q.script, "work", r.URL, s.Addr(), fmt.Sprint(connections), fmt.Sprint(concurrency)}, "NODE_ENV=production")
	p.await(b, func() bool {
		n, err := r.Client.Exists(b.Context(), fmt.Sprint("bench:ready:", p.PID())).Result()
		b.Check(err)
		return n == 1
	})
	return p, func() { b.Check(p.cmd.Process.Signal(startSignal)) }
}
