package postfix

import (
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/internal/testserver"
)

// prepare makes the directories, with the owners and rights that Postfix wants, and
// the certificates.
func (s *Server) prepare() error {
	for _, d := range []struct {
		name string
		uid  int
		gid  int
		mode os.FileMode
	}{
		{name: "conf", mode: 0o755},
		{name: "data", uid: s.system.uid, mode: 0o700},
		{name: "mail", uid: s.system.mailbox.UID, gid: s.system.mailbox.GID, mode: 0o755},
		{name: "queue", mode: 0o755},
		{name: "queue/pid", mode: 0o755},
		{name: "queue/maildrop", uid: s.system.uid, mode: 0o730},
		{name: "queue/public", uid: s.system.uid, mode: 0o710},
		{name: "queue/private", uid: s.system.uid, mode: 0o700},
		{name: "queue/active", uid: s.system.uid, mode: 0o700},
		{name: "queue/bounce", uid: s.system.uid, mode: 0o700},
		{name: "queue/corrupt", uid: s.system.uid, mode: 0o700},
		{name: "queue/defer", uid: s.system.uid, mode: 0o700},
		{name: "queue/deferred", uid: s.system.uid, mode: 0o700},
		{name: "queue/flush", uid: s.system.uid, mode: 0o700},
		{name: "queue/hold", uid: s.system.uid, mode: 0o700},
		{name: "queue/incoming", uid: s.system.uid, mode: 0o700},
		{name: "queue/saved", uid: s.system.uid, mode: 0o700},
		{name: "queue/trace", uid: s.system.uid, mode: 0o700},
	} {
		if err := os.Mkdir(s.path(d.name), d.mode); err != nil {
			return err
		}
		if err := os.Chmod(s.path(d.name), d.mode); err != nil { // whatever our umask is
			return err
		}
		if err := os.Chown(s.path(d.name), d.uid, d.gid); err != nil {
			return err
		}
	}
	if !s.opts.TLS {
		return nil
	}
	var err error
	if s.ca, err = testserver.NewAuthority(s.dir, "postfixtest authority"); err != nil {
		return err
	}
	if err := s.ca.Issue("server", "localhost", x509.ExtKeyUsageServerAuth); err != nil {
		return err
	}
	return s.ca.Issue("client", "postfixtest client", x509.ExtKeyUsageClientAuth)
}

func (s *Server) writeConfig() error {
	for name, text := range map[string]string{"master.cf": s.masterCf(), "main.cf": s.mainCf()} {
		path := s.path("conf", name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil { //nolint:gosec // other users have to read it
			return err
		}
		// Each daemon reads main.cf again and again as long as it is less than two
		// seconds old, lest it sees half of a change.
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(path, old, old); err != nil {
			return err
		}
	}
	return nil
}

// masterCf lists the daemons that receiving and delivering takes.
func (s *Server) masterCf() string {
	lines := []string{
		fmt.Sprintf("%s inet n - n - 100 smtpd", s.Addr()),
		"pickup unix n - n 60 1 pickup",
		"cleanup unix n - n - 0 cleanup",
		"qmgr unix n - n 300 1 qmgr",
		"rewrite unix - - n - - trivial-rewrite",
		"bounce unix - - n - 0 bounce",
		"defer unix - - n - 0 bounce",
		"trace unix - - n - 0 bounce",
		"error unix - - n - - error",
		"retry unix - - n - - error",
		"virtual unix - n n - - virtual",
		"smtp unix - - n - - smtp", // for an Options.Main that relays
		"anvil unix - - n - 1 anvil",
		"tlsmgr unix - - n 1000? 1 tlsmgr",
		"postlog unix-dgram n - n - 1 postlogd",
	}
	if s.opts.TLS {
		lines = append(lines, s.TLSAddr()+" inet n - n - 100 smtpd -o smtpd_tls_wrappermode=yes")
	}
	return strings.Join(lines, "\n") + "\n"
}

func (s *Server) mainCf() string {
	lines := []string{
		"compatibility_level = 3.6",
		"queue_directory = " + s.path("queue"),
		"data_directory = " + s.path("data"),
		"mail_owner = " + s.system.owner,
		"maillog_file = " + s.path("maillog"),
		"maillog_file_prefixes = " + s.dir,
		"myhostname = mx.example.com",
		"smtpd_banner = $myhostname ESMTP $mail_name " + s.token(),
		"inet_interfaces = loopback-only",
		"inet_protocols = ipv4",
		"disable_dns_lookups = yes",
		"smtpd_peername_lookup = no",
		"smtpd_client_port_logging = yes",

		// Every domain is ours, and every mail goes into one mailbox.
		"mydestination =",
		"alias_maps =",
		"alias_database =",
		"local_recipient_maps =",
		"virtual_mailbox_domains = static:all",
		"virtual_mailbox_maps = static:./",
		"virtual_mailbox_base = " + s.path("mail"),
		fmt.Sprintf("virtual_uid_maps = static:%d", s.system.mailbox.UID),
		fmt.Sprintf("virtual_gid_maps = static:%d", s.system.mailbox.GID),
		"virtual_mailbox_limit = 0",

		// What the test receives is what the client sent.
		"local_header_rewrite_clients =",
		"message_drop_headers =",
		"header_size_limit = 10240000",

		// No waiting, and no limits meant for strangers.
		"in_flow_delay = 0s",
		"smtpd_error_sleep_time = 0s",
		"smtpd_client_connection_count_limit = 0",
		"hash_queue_names = corrupt", // flat directories for those that Drain reads
	}
	lines = append(lines, s.refusals()...)
	lines = append(lines, s.optional()...)
	return strings.Join(append(lines, s.opts.Main...), "\n") + "\n"
}

// refusals is the table of the package's documentation.
func (s *Server) refusals() []string {
	permit := "permit_mynetworks"
	if len(s.opts.Users) > 0 {
		permit = "permit_sasl_authenticated"
	}
	return []string{
		"mynetworks = 127.0.0.0/8",
		"smtpd_relay_restrictions =",
		"smtpd_sender_restrictions = check_sender_access regexp:{" +
			"{/^refused-sender@/ 553 5.7.1 this sender may not}, {/^later-sender@/ 450 4.7.1 this sender not now}}",
		"smtpd_recipient_restrictions = check_recipient_access regexp:{" +
			"{/^refused@/ 550 5.1.1 nobody of that name}, {/^later@/ 450 4.2.0 not now}, {/^closing@/ 421 4.3.2 going down}}, " +
			permit + ", reject",
		"header_checks = regexp:{" +
			"{/^X-Postfixtest: reject/ REJECT refused for a test}, {/^X-Postfixtest: defer/ REJECT 4.7.1 deferred for a test}}",
	}
}

func (s *Server) optional() []string {
	var lines []string
	if s.opts.TLS {
		cert, key := s.path("server.pem"), s.path("server.key")
		lines = append(lines,
			"smtpd_tls_security_level = may",
			"smtpd_tls_chain_files = "+key+", "+cert,
			"smtpd_tls_CAfile = "+s.CAFile(),
			"smtpd_tls_ask_ccert = yes",
			"smtpd_tls_received_header = yes")
	}
	if len(s.opts.Users) > 0 {
		lines = append(lines,
			"smtpd_sasl_auth_enable = yes",
			"smtpd_sasl_type = dovecot",
			"smtpd_sasl_path = private/auth",
			"smtpd_sasl_authenticated_header = yes")
	}
	if s.opts.MaxMessageSize > 0 {
		lines = append(lines, fmt.Sprintf("message_size_limit = %d", s.opts.MaxMessageSize))
	}
	if s.opts.MaxRecipients > 0 {
		lines = append(lines, fmt.Sprintf("smtpd_recipient_limit = %d", s.opts.MaxRecipients))
	}
	if len(s.opts.DiscardEHLO) > 0 {
		lines = append(lines, "smtpd_discard_ehlo_keywords = "+strings.ToLower(strings.Join(s.opts.DiscardEHLO, ", ")))
	}
	if s.opts.Verifier != "" {
		lines = append(lines, "smtpd_milters = inet:"+s.opts.Verifier, "milter_default_action = tempfail")
	}
	if s.opts.RejectPipelining {
		lines = append(lines,
			"smtpd_forbid_unauth_pipelining = yes",
			"smtpd_client_restrictions = reject_unauth_pipelining",
			"smtpd_helo_restrictions = reject_unauth_pipelining",
			"smtpd_data_restrictions = reject_unauth_pipelining",
			"smtpd_end_of_data_restrictions = reject_unauth_pipelining")
	}
	return lines
}
