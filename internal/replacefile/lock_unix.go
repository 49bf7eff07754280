//go:build unix

package replacefile

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// keepOwner gives a file the owner of the one whose place it takes, if we may: root may have been asked to write a file
// that a worker reads.
func keepOwner(f *os.File, before fs.FileInfo) {
	if owner, ok := before.Sys().(*syscall.Stat_t); ok {
		_ = f.Chown(int(owner.Uid), int(owner.Gid))
	}
}

// lockPoll is how often a lock is tried that another process has.
const lockPoll = 50 * time.Millisecond

// Lock keeps other processes of this machine that call it out until unlock is called, so that a file can be read and replaced without a change
// of theirs being lost. The lock is on a file beside it, for the file itself is replaced. Where there can be no such file there is no
// lock. The error is the context's.
func Lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // beside what the configuration names
	if err != nil {
		return func() {}, nil //nolint:nilerr // a directory that is read only, as secrets of containers are
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return func() { _ = f.Close() }, nil
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			return func() { _ = f.Close() }, nil // a file system without locks
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), f.Close())
		case <-time.After(lockPoll):
		}
	}
}
