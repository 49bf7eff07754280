package postfix

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/internal/testserver"
)

// startDovecot starts a Dovecot that does nothing but check passwords and tokens, for Postfix's
// smtpd, over a socket in its queue directory.
func (s *Server) startDovecot() {
	s.t.Helper()
	path := needDovecot(s.t)
	users := s.path("users")
	if err := os.WriteFile(users, []byte(s.passwd()), 0o644); err != nil { //nolint:gosec // Dovecot's own user has to read it
		s.t.Fatalf("postfixtest: dovecot: %v", err)
	}
	if s.opts.Introspect != "" {
		if err := os.WriteFile(s.path("oauth2.conf"), []byte(s.oauthConf()), 0o644); err != nil { //nolint:gosec // as above
			s.t.Fatalf("postfixtest: dovecot: %v", err)
		}
	}
	conf := s.path("dovecot.conf")
	if err := os.WriteFile(conf, []byte(s.dovecotConf()), 0o600); err != nil {
		s.t.Fatalf("postfixtest: dovecot: %v", err)
	}
	p, err := testserver.Start(exec.Command(path, "-F", "-c", conf), s.path("dovecot.log")) //nolint:gosec // found by LookPath
	if err != nil {
		s.t.Fatalf("postfixtest: dovecot: %v", err)
	}
	s.dovecot = p
	err = testserver.Poll(context.Background(), p, func() error {
		conn, err := net.Dial("unix", s.path("queue/private/auth"))
		if err != nil {
			return err // not listening yet
		}
		return conn.Close()
	})
	if err != nil {
		s.t.Fatalf("postfixtest: dovecot: %v", err)
	}
}

func needDovecot(t testing.TB) string {
	t.Helper()
	const install = "install dovecot 2.3 (Debian 12, Ubuntu 24.04: apt-get install dovecot-core)"
	path, err := testserver.LookPath("dovecot")
	if err != nil {
		testserver.Missing(t, "postfixtest: "+install)
	}
	version, err := exec.Command(path, "--version").Output() //nolint:gosec // found by LookPath
	if err != nil {
		t.Fatalf("postfixtest: dovecot --version: %v", err)
	}
	if !strings.HasPrefix(string(version), "2.3.") {
		testserver.Missing(t, "postfixtest: "+install+", whose configuration differs from that of "+strings.TrimSpace(string(version)))
	}
	return path
}

// passwd is the text of the passwd-file: user:{scheme}password. A password may have
// colons, so it goes in base64.
func (s *Server) passwd() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(s.opts.Users)) {
		password := base64.StdEncoding.EncodeToString([]byte(s.opts.Users[name]))
		fmt.Fprintf(&b, "%s:{PLAIN.b64}%s::::::\n", name, password)
	}
	return b.String()
}

// oauthConf is how Dovecot asks what a token is worth.
func (s *Server) oauthConf() string {
	return `
introspection_mode = post
introspection_url = ` + s.opts.Introspect + `
username_attribute = username
active_attribute = active
active_value = true
`
}

func (s *Server) dovecotConf() string {
	mechanisms, oauth2 := "plain login cram-md5", ""
	if s.opts.Introspect != "" {
		mechanisms += " xoauth2 oauthbearer"
		oauth2 = "passdb {\n  driver = oauth2\n  mechanisms = xoauth2 oauthbearer\n  args = " + s.path("oauth2.conf") + "\n}\n"
	}
	return strings.NewReplacer(
		"$MECHANISMS", mechanisms,
		"$TOKENS", oauth2,
		"$DIR", s.dir,
		"$OWNER", s.system.owner,
		"$UID", strconv.Itoa(s.system.mailbox.UID),
		"$GID", strconv.Itoa(s.system.mailbox.GID),
	).Replace(`
base_dir = $DIR/dovecot
log_path = /dev/stderr
protocols =
ssl = no
disable_plaintext_auth = no
auth_mechanisms = $MECHANISMS
auth_failure_delay = 0
$TOKENSpassdb {
  driver = passwd-file
  args = $DIR/users
}
userdb {
  driver = static
  args = uid=$UID gid=$GID home=/nonexistent
}
# No waiting after a wrong password.
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service auth {
  unix_listener $DIR/queue/private/auth {
    mode = 0600
    user = $OWNER
  }
}
`)
}
