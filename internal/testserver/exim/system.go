package exim

import (
	"errors"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// system is what we need to know of the Exim that is there.
type system struct {
	path      string // of the program
	libraries string // directories of its libraries beside the system's, as LD_LIBRARY_PATH
	uid, gid  int    // of the user that it changes to
}

const install = "Exim is not here: run .ci/deps as root (Debian), which puts it into the user's cache directory " +
	"where it does not get into the way of another mail server, or install exim4-daemon-light"

func needExim(t testing.TB) system {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("eximtest: Exim needs root: run the tests as root, or with sudo")
	}
	sys, err := findExim()
	switch {
	case err == nil:
		return sys
	case errors.Is(err, exec.ErrNotFound) && os.Getenv("CI") == "":
		t.Skip("eximtest: " + install)
	case errors.Is(err, exec.ErrNotFound):
		t.Fatal("eximtest: " + install)
	}
	t.Fatalf("eximtest: %v", err)
	return system{}
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
	account, err := user.Lookup("Debian-exim") // it is compiled in
	if err != nil {
		return system{}, err
	}
	uid, err1 := strconv.Atoi(account.Uid)
	gid, err2 := strconv.Atoi(account.Gid)
	sys.uid, sys.gid = uid, gid
	return sys, errors.Join(err1, err2)
}

// exim is a call of Exim with our configuration.
func (s *Server) exim(arg string) *exec.Cmd {
	cmd := exec.Command(s.system.path, "-C", s.path("conf"), arg) //nolint:gosec // found by findExim
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+s.system.libraries)
	cmd.Dir = s.dir
	return cmd
}
