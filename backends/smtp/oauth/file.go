package oauth

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxFile is the size of the biggest token file.
const maxFile = 64 << 10

// ReadTokenFile reads a refresh token. A file that is not there, or has nothing in it, is an error that says how to make
// one.
func ReadTokenFile(path string) (string, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the configuration names it
	token := string(bytes.TrimSpace(text))
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && token == "":
		return "", fmt.Errorf("%s has no refresh token yet: worker oauth login writes one", path)
	case err != nil:
		return "", err
	case len(token) > maxFile || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", fmt.Errorf("%s holds something else than a refresh token, which is one word in one line", path)
	}
	return token, nil
}

// WriteTokenFile writes a refresh token, in a file that nobody but its owner may read. Whoever reads the file meanwhile
// sees the old token or the new one. A link stays one.
func WriteTokenFile(path, token string) (err error) {
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
	}
	_, err = f.WriteString(token + "\n")
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
