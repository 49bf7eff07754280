package oauth

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/mailpouch/mailpouch/internal/replacefile"
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
func WriteTokenFile(path, token string) error { return replacefile.Write(path, token+"\n") }
