package exim

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/mailpouch/mailpouch/internal/testserver"
)

// prepare makes the directories, with the owners and rights that Exim wants, and the
// certificate.
func (s *Server) prepare() error {
	if err := os.Chmod(s.dir, 0o755); err != nil { //nolint:gosec // Exim's user has to enter
		return err
	}
	for _, name := range []string{"spool", "mail", "log"} {
		if err := os.Mkdir(s.path(name), 0o750); err != nil {
			return err
		}
		if err := s.own(s.path(name)); err != nil {
			return err
		}
	}
	if !s.opts.TLS {
		return nil
	}
	ca, err := testserver.NewAuthority(s.dir, "eximtest authority")
	if err != nil {
		return err
	}
	if err := ca.Issue("server", "localhost", x509.ExtKeyUsageServerAuth); err != nil {
		return err
	}
	cert, key := ca.CertFiles("server")
	return errors.Join(s.own(cert), s.own(key))
}

// own gives a file to Exim's user.
func (s *Server) own(path string) error {
	return os.Chown(path, s.system.user.UID, s.system.user.GID)
}

// config is the configuration. It has no lookups, so that nothing of the system and no
// name server is asked.
func (s *Server) config() string {
	var b strings.Builder
	main := s.main()
	for _, name := range slices.Sorted(maps.Keys(main)) {
		fmt.Fprintf(&b, "%s = %s\n", name, main[name])
	}
	b.WriteString(strings.ReplaceAll(sections, "$DIR", s.dir))
	return b.String()
}

func (s *Server) main() map[string]string {
	main := map[string]string{
		"primary_hostname":  "mx.example.com",
		"spool_directory":   s.path("spool"),
		"pid_file_path":     s.path("spool", "pid"),
		"log_file_path":     s.path("log", "%s"),
		"log_selector":      "+pid +smtp_connection +smtp_protocol_error +smtp_syntax_error +incoming_port",
		"keep_environment":  "LD_LIBRARY_PATH",
		"local_interfaces":  "127.0.0.1",
		"daemon_smtp_ports": strconv.Itoa(s.port),

		"daemon_startup_retries": "0",
		"host_lookup":            "",
		"rfc1413_query_timeout":  "0s",

		// Exim spools and the test delivers, as its own user. A delivery that is
		// killed would come twice.
		"queue_only":             "true",
		"deliver_drop_privilege": "true",

		// What the test receives is what the client sent.
		"return_path_remove":   "false",
		"envelope_to_remove":   "false",
		"delivery_date_remove": "false",

		"smtp_accept_max":            "0",
		"dsn_advertise_hosts":        "*",
		"tls_advertise_hosts":        "",
		"smtputf8_advertise_hosts":   "*",
		"pipelining_advertise_hosts": "*",
		"chunking_advertise_hosts":   "*",

		"acl_smtp_mail": "check_mail",
		"acl_smtp_rcpt": "check_rcpt",
		"acl_smtp_data": "check_data",
	}
	if s.opts.TLS {
		main["tls_advertise_hosts"] = "*"
		main["tls_certificate"] = s.path("server.pem")
		main["tls_privatekey"] = s.path("server.key")
	}
	for name, n := range map[string]int{
		"message_size_limit": s.opts.MaxMessageSize, "recipients_max": s.opts.MaxRecipients,
		"smtp_accept_max_per_connection": s.opts.MaxMessages,
	} {
		if n > 0 {
			main[name] = strconv.Itoa(n)
		}
	}
	maps.Copy(main, s.opts.Main)
	return main
}

// sections are the refusals of the package's documentation, and the one way that
// every mail takes: into the mailbox, behind its envelope.
const sections = `
begin acl
check_mail:
  deny    senders = ^refused-sender@
          message = 553 5.7.1 this sender may not
  defer   senders = ^later-sender@
          message = 450 4.7.1 this sender not now
  accept
check_rcpt:
  deny    local_parts = refused
          message = 550 5.1.1 nobody of that name
  defer   local_parts = later
          message = 450 4.2.0 not now
  defer   local_parts = busy
          message = 421 4.3.2 too busy
  drop    local_parts = dropped
          message = 550 5.3.2 go away
  accept
check_data:
  deny    condition = ${if eq{$h_X-Eximtest:}{reject}}
          message = 550 5.7.1 refused for a test
  defer   condition = ${if eq{$h_X-Eximtest:}{defer}}
          message = 451 4.7.1 deferred for a test
  accept

begin routers
all:
  driver = accept
  caseful_local_part
  transport = mailbox

begin transports
mailbox:
  driver = appendfile
  directory = $DIR/mail
  maildir_format
  message_prefix = "Return-Path: <$return_path>\nDelivered-To: $local_part@$domain\n"
  message_suffix =
`
