// Package replacefile replaces a file as a whole: whoever reads it meanwhile, and whoever reads it after a crash, sees what it had
// before or what it has now.
package replacefile

import (
	"errors"
	"os"
	"path/filepath"
)

// Write writes a file that nobody but its owner may read, unless others may already. The owner stays who it was, where we may say so; a link
// stays one.
func Write(path, text string) (err error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // its mode is 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if before, err := os.Stat(path); err == nil {
		keepOwner(f, before)
		_ = f.Chmod(before.Mode().Perm()) // a worker may read it as a member of its group
	}
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	syncDir(filepath.Dir(path))
	return nil
}

// syncDir makes sure that a new name in a directory outlives a crash, where the system can do that.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil { //nolint:gosec // it has our file
		_ = d.Sync()
		_ = d.Close()
	}
}
