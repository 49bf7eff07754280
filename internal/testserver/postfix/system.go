package postfix

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/internal/testserver"
)

// system is what we need to know of the installed Postfix.
type system struct {
	daemons  string // directory of its daemons
	sendmail string // its command of that name
	owner    string // user that owns the queue
	uid      int    // of owner
	mailbox  testserver.Account
}

func needPostfix(t testing.TB) system {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("postfixtest: Postfix needs root: run the tests as root, or with sudo")
	}
	postconf, err := testserver.LookPath("postconf")
	if err != nil {
		testserver.Missing(t, "postfixtest: install postfix (Debian: apt-get install postfix, with \"No configuration\")")
	}
	sys, err := ask(postconf)
	if err != nil {
		t.Fatalf("postfixtest: %v", err)
	}
	return sys
}

// ask takes Postfix's built-in defaults, not those of the system's main.cf.
func ask(postconf string) (system, error) {
	out, err := exec.Command(postconf, "-d", "-h", "daemon_directory", "sendmail_path", "mail_owner").Output()
	if err != nil {
		return system{}, fmt.Errorf("postconf: %w", err)
	}
	fields := strings.Fields(string(out))
	if len(fields) != 3 {
		return system{}, fmt.Errorf("postconf: unexpected output %q", out)
	}
	sys := system{daemons: fields[0], sendmail: fields[1], owner: fields[2]}
	owner, err := testserver.LookupAccount(sys.owner)
	if err != nil {
		return system{}, err
	}
	sys.uid = owner.UID
	sys.mailbox, err = testserver.LookupAccount("nobody")
	return sys, err
}

// makeDir makes the directory that everything lives in. t.TempDir will not do: only
// its owner may enter, and Postfix's parts run as other users. TMPDIR may be such a
// directory too; and the names of the sockets in it must stay short (108 bytes).
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
