package postfix

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"testing"
)

// system is what we need to know of the installed Postfix.
type system struct {
	daemons string // directory of its daemons
	owner   string // user that owns the queue
	uid     int    // of owner
	mailbox account
}

// account is who the mailbox belongs to.
type account struct{ uid, gid int }

func needPostfix(t testing.TB) system {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("postfixtest: Postfix needs root: run the tests as root, or with sudo")
	}
	postconf, err := lookup("postconf")
	if err != nil {
		missing(t, "install postfix (Debian: apt-get install postfix, with \"No configuration\")")
	}
	sys, err := ask(postconf)
	if err != nil {
		t.Fatalf("postfixtest: %v", err)
	}
	return sys
}

func missing(t testing.TB, text string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal("postfixtest: " + text)
	}
	t.Skip("postfixtest: " + text)
}

// lookup finds a program that may be where PATH does not lead.
func lookup(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return exec.LookPath("/usr/sbin/" + name)
	}
	return path, nil
}

// ask takes Postfix's built-in defaults, not those of the system's main.cf.
func ask(postconf string) (system, error) {
	out, err := exec.Command(postconf, "-d", "-h", "daemon_directory", "mail_owner").Output()
	if err != nil {
		return system{}, fmt.Errorf("postconf: %w", err)
	}
	fields := strings.Fields(string(out))
	if len(fields) != 2 {
		return system{}, fmt.Errorf("postconf: unexpected output %q", out)
	}
	sys := system{daemons: fields[0], owner: fields[1]}
	owner, err := lookupAccount(sys.owner)
	if err != nil {
		return system{}, err
	}
	sys.uid = owner.uid
	sys.mailbox, err = lookupAccount("nobody")
	return sys, err
}

func lookupAccount(name string) (account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return account{}, err
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	return account{uid: uid, gid: gid}, errors.Join(err1, err2)
}

// makeDir makes the directory that everything lives in. t.TempDir will not do: only
// its owner may enter, and Postfix's parts run as other users. TMPDIR may be such a
// directory too; and the names of the sockets in it must stay short (108 octets).
func makeDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "postfixtest-")
	if err == nil {
		err = os.Chmod(dir, 0o755) //nolint:gosec // other users have to enter
	}
	if err != nil {
		t.Fatalf("postfixtest: %v", err)
	}
	return dir
}
