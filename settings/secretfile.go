package settings

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// A secret may be in a file, as containers have them: where NAME is the variable of a secret, NAME_FILE names a file with its
// text. The text is the whole file, without the line end at its end.

// maxSecret is how many bytes such a file may have. Keys and service accounts are a few thousand.
const maxSecret = 64 << 10

// bom is what some editors put before a text in UTF-8.
const bom = "\ufeff"

// readSecret reads the file of a secret. The error never repeats any of it.
func readSecret(path string) (string, error) {
	if err := lineEndIn(path); err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", fmt.Errorf("cannot be read: %w", err)
	case info.IsDir():
		return "", fmt.Errorf("%s is a directory, where a file with the secret is expected", path)
	case !info.Mode().IsRegular(): // a pipe may wait for ever, and is read once
		return "", fmt.Errorf("%s is not a regular file: it has to be one that can be read again", path)
	}
	content, err := readAtMost(path, maxSecret+1)
	if err != nil {
		return "", fmt.Errorf("cannot be read: %w", err)
	}
	text, cut := strings.CutSuffix(string(content), "\n")
	if cut {
		text = strings.TrimSuffix(text, "\r")
	}
	switch {
	case len(content) > maxSecret:
		return "", fmt.Errorf("%s has more than %d bytes: is it another file?", path, maxSecret)
	case text == "":
		return "", fmt.Errorf("%s is empty", path)
	case strings.HasPrefix(text, bom):
		return "", fmt.Errorf("%s begins with a byte order mark, which would be part of the secret: save it without", path)
	}
	return text, nil
}

func readAtMost(path string, n int64) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // the administrator names the file
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(f, n))
	return content, errors.Join(err, f.Close())
}

// isExposed reports whether every user of this machine can read a file: it lets them, and so do the directories above it.
func isExposed(path string) bool {
	const others, enter = 0o004, 0o001
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false
	}
	if path, err = filepath.Abs(path); err != nil || !allows(path, others) {
		return false
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if !allows(dir, enter) {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

func allows(path string, mode os.FileMode) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().Perm()&mode != 0
}

// canRead reads one byte, because a directory can be opened but not read.
func canRead(path string) error {
	f, err := os.Open(path) //nolint:gosec // the administrator names the file
	if err != nil {
		return err
	}
	_, err = f.Read(make([]byte, 1))
	if closeErr := f.Close(); err == nil || errors.Is(err, io.EOF) {
		return closeErr
	}
	return err
}
