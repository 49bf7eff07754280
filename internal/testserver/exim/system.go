package exim

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/internal/testserver"
)

// system is what we need to know of the Exim that is there.
type system struct {
	path      string             // of the program
	libraries string             // directories of its libraries beside the system's, as LD_LIBRARY_PATH
	user      testserver.Account // it changes to
}

const install = "Exim is not here: run .ci/deps as root (Debian), which puts it into the user's cache directory " +
	"where it does not get into the way of another mail server, or install exim4-daemon-light"

func needExim(t testing.TB) system {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("eximtest: Exim needs root: run the tests as root, or with sudo")
	}
	sys, err := findExim()
	if errors.Is(err, exec.ErrNotFound) {
		testserver.Missing(t, "eximtest: "+install)
	}
	if err != nil {
		t.Fatalf("eximtest: %v", err)
	}
	return sys
}

// findExim looks for an installed Exim and then for the one of .ci/deps.
func findExim() (system, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return system{}, err
	}
	cache = filepath.Join(cache, "mailpouch", "exim")
	var sys system
	for _, name := range []string{"exim4", "/usr/sbin/exim4", filepath.Join(cache, "usr/sbin/exim4")} {
		if sys.path, err = exec.LookPath(name); err == nil {
			break
		}
	}
	if err != nil {
		return system{}, exec.ErrNotFound // LookPath says of a path that there is no such file
	}
	if strings.HasPrefix(sys.path, cache) {
		libraries, err := filepath.Glob(filepath.Join(cache, "usr/lib/*"))
		if err != nil {
			return system{}, err
		}
		sys.libraries = strings.Join(libraries, ":")
	}
	sys.user, err = testserver.LookupAccount("Debian-exim") // it is compiled in
	return sys, err
}

// exim is a call of Exim with our configuration.
func (s *Server) exim(arg string) *exec.Cmd {
	cmd := exec.Command(s.system.path, "-C", s.path("conf"), arg) //nolint:gosec // found by findExim
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+s.system.libraries)
	cmd.Dir = s.dir
	return cmd
}
