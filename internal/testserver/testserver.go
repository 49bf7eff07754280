// Package testserver holds what the real servers for tests share: processes that do
// not outlive the test, certificates, mailboxes, and how to wait for a server. The
// servers are in the packages below it.
package testserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Timeout bounds every wait for a server, generously: the machine may be busy.
const Timeout = 30 * time.Second

// probeInterval is the pause between two looks at something that is not there yet.
const probeInterval = 2 * time.Millisecond

// Missing skips the test because a program is not installed. Where CI is set in the
// environment the test fails instead: there it would be skipped for ever without
// anybody noticing.
func Missing(t testing.TB, text string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(text)
	}
	t.Skip(text)
}

// LookPath finds a daemon, which may be where PATH does not lead.
func LookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return exec.LookPath("/usr/sbin/" + name)
	}
	return path, nil
}

// Account is a user of the system.
type Account struct{ UID, GID int }

// LookupAccount finds a user by name.
func LookupAccount(name string) (Account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return Account{}, err
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	return Account{UID: uid, GID: gid}, errors.Join(err1, err2)
}

// FreePort returns a port of 127.0.0.1 that nobody listens on. No test gets it, in any process, until this process ends: so it stays a server's
// while that is away. It is below those that systems give to who asks for any, which may be a connection's.
func FreePort() (port int, err error) { return freePort() }

// FreePair is FreePort for a server that takes a second port as well, so far above the first one.
func FreePair(apart int) (port int, err error) { return freePort(apart) }

const firstPort, lastPort = 10_000, 29_999

func freePort(above ...int) (port int, err error) {
	span := lastPort + 1 - firstPort - slices.Max(append(above, 0))
	for range 1000 {
		port = firstPort + rand.IntN(span) //nolint:gosec // no secret
		err = takePort(port)
		for _, n := range above {
			err = cmp.Or(err, takePort(port+n))
		}
		if err == nil {
			return port, nil
		}
	}
	return 0, err
}

func takePort(port int) error {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	return cmp.Or(l.Close(), reserve(port))
}

// FreeAddr is an address with a FreePort.
func FreeAddr(t testing.TB) string {
	t.Helper()
	port, err := FreePort()
	if err != nil {
		t.Fatalf("testserver: free port: %v", err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// Launch calls launch, which starts a server on a free port, and calls it again when
// the server's log says that somebody else took the port first.
func Launch(launch func() error, log func() string) error {
	var err error
	for range 5 {
		if err = launch(); err == nil || !strings.Contains(log(), "Address already in use") {
			break
		}
	}
	return err
}

// Poll calls ready until it returns nil. It gives up when p has ended (p may be nil),
// or when ctx has, if that has no deadline after Timeout, and returns ready's last error then.
func Poll(ctx context.Context, p *Process, ready func() error) error {
	if _, has := ctx.Deadline(); !has {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, Timeout)
		defer cancel()
	}
	var exited <-chan struct{}
	if p != nil {
		exited = p.exited
	}
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("it has ended, its log says why: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-tick.C:
		}
	}
}
