package harness

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
)

// Programs are the paths of the programs that are measured.
type Programs struct {
	Worker  string // cmd/worker
	Enqueue string // cmd/enqueue
	Peer    string // bench/peer
	BullMQ  string // the directory bench/peer/bullmq
}

// Build builds the programs of the tree that is at root into dir.
func Build(ctx context.Context, root, dir string) (Programs, error) {
	p := Programs{
		Worker: filepath.Join(dir, "worker"), Enqueue: filepath.Join(dir, "enqueue"), Peer: filepath.Join(dir, "peer"),
		BullMQ: filepath.Join(root, "bench", "peer", "bullmq"),
	}
	for _, build := range []struct{ in, pkg, out string }{
		{root, "./cmd/worker", p.Worker},
		{root, "./cmd/enqueue", p.Enqueue},
		{filepath.Join(root, "bench"), "./peer", p.Peer},
	} {
		c := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", build.out, build.pkg) //nolint:gosec // fixed packages
		c.Dir = build.in
		c.Env = append(c.Environ(), "CGO_ENABLED=0") // as "make build" does
		if out, err := c.CombinedOutput(); err != nil {
			return p, fmt.Errorf("build %s: %w\n%s", build.pkg, err, out)
		}
	}
	return p, nil
}
