package main

import (
	"bytes"
	"fmt"
	"io"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/mailer"
)

// arguments are the program's arguments. Under the name sendmail it is the raw command.
func arguments(argv []string) []string {
	if len(argv) > 0 && filepath.Base(argv[0]) == "sendmail" {
		return append([]string{"raw"}, argv[1:]...)
	}
	return argv[min(len(argv), 1):]
}

func (a *app) rawCommand() *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "raw [-t] [-f SENDER] [-i] [RECIPIENT...]",
		Short: "Queue a finished message from standard input, as sendmail(8) does",
		Long: `Queue a finished message (RFC 5322) from standard input, as sendmail(8) does.
The body is sent as it is, so that signatures stay valid.

  -t         the recipients are those of To, Cc and Bcc (of a resent message: of
             Resent-To, Resent-Cc, Resent-Bcc) and, as with Postfix, those of the
             command line; Bcc is never sent
  -f SENDER  sender of the envelope, where bounces go; -f "" is the null sender
  -F NAME    name of the sender, if the message has no From
  -i, -oi    a line with a dot alone does not end the message
  -v         print the task's ID
  -bm        what is done anyway

Other options of sendmail do nothing (-B -e -h -m -n -N -o -O -R -V ...), or are
refused with exit code 64 where more would be needed than to take one message
(-bs -bd -bp -bi -q). Options may be bundled (-ti), and end at the first recipient
or at --. The queue's own options have two dashes.

Without -f the sender is DEFAULT_FROM_EMAIL if that is set, else the user at this
machine. Addresses without a domain get the machine's full name (EMAIL_HOSTNAME), or
its short one where there is none, in the header too (From, Sender, Reply-To, To, Cc)
unless the message is signed. From, Date and Message-ID are added if missing. What does not begin with a header is taken for
a body.

What mail cannot carry as it is, text beyond ASCII in the header and lines of more
than 998 bytes, is encoded so that a reader sees the same. What a signature covers
(DKIM, S/MIME, OpenPGP) is never changed: a message that would need it is refused.

Called as "sendmail" the program is this command, so it can stand in for another
sendmail: ln -s "$(command -v enqueue)" /usr/sbin/sendmail. Programs that clear the
environment, such as cron, need a script in its place that sets REDIS_URL:

  #!/bin/sh
  set -a; . /etc/mailpouch.env; exec /usr/local/bin/enqueue raw "$@"`,
		Example: `  enqueue raw -f ann@example.com bob@example.com < message.eml
  enqueue raw -t -i --queue bulk < message.eml
  git send-email --sendmail-cmd="enqueue raw -i" 0001-fix.patch`,
		DisableFlagParsing: true, // sendmail's options are not cobra's
	}
	c.RunE = func(c *cobra.Command, args []string) error { return a.raw(c, args, &o) }
	o.addFlags(c)
	o.addKeyFlag(c)
	return c
}

func (a *app) raw(c *cobra.Command, args []string, o *options) error {
	s, err := parseSubmission(args, func(long string) bool {
		f := c.Flags().Lookup(long)
		return f != nil && f.NoOptDefVal == ""
	})
	if err != nil {
		return err
	}
	if err := c.Flags().Parse(s.long); err != nil {
		return cli.Exit(cli.ExitUsage, err)
	}
	if help, _ := c.Flags().GetBool("help"); help {
		return c.Help()
	}
	queueOptions, err := o.read()
	if err != nil {
		return cli.Exit(cli.ExitUsage, err)
	}
	if len(s.recipients) == 0 && !s.fromHeader {
		return cli.Exitf(cli.ExitUsage, "nobody to send to: give recipients, or -t if they are in the message")
	}
	if err := a.connect(c.Context()); err != nil {
		return err
	}
	defer a.close()
	m, err := a.readMessage(s)
	if err != nil {
		return err
	}
	id, err := handedOver(a.queue(queueOptions).Enqueue(c.Context(), m))
	if err == nil && s.verbose {
		fmt.Fprintln(a.std.Out, id)
	}
	return err
}

// readMessage makes a message of standard input and the command line.
func (a *app) readMessage(s submission) (*mailer.EmailMessage, error) {
	raw, err := a.readRaw(s.dots)
	if err != nil {
		return nil, err
	}
	raw = mailer.QualifyRaw(raw, a.defaults.Domain())
	m := &mailer.EmailMessage{Raw: raw}
	if s.fromHeader {
		if m, err = mailer.ParseRaw(raw); err != nil {
			return nil, err
		}
	}
	for _, r := range s.recipients {
		if strings.ContainsAny(r, `"<(`) {
			m.To = append(m.To, r)
			continue
		}
		m.To = append(m.To, strings.Split(r, ",")...)
	}
	for i, r := range m.To {
		m.To[i] = a.qualified(r)
	}
	if len(m.Recipients()) == 0 {
		return nil, cli.Exitf(cli.ExitData, "nobody to send to: the message has no To, Cc or Bcc")
	}
	return m, a.setSender(m, s)
}

// qualified gives an address without a domain that of this machine. A dot at the end of a domain is
// left out.
func (a *app) qualified(address string) string {
	if strings.Contains(address, "@") && !strings.ContainsAny(address, `"<(`) {
		return strings.TrimSuffix(strings.TrimSpace(address), ".")
	}
	if strings.ContainsAny(address, "@<") || strings.TrimSpace(address) == "" {
		return address
	}
	return strings.TrimSpace(address) + "@" + a.defaults.Domain()
}

// setSender sets the sender: of the envelope, and of From if the message has none.
func (a *app) setSender(m *mailer.EmailMessage, s submission) error {
	name, null := s.name, s.sender != nil && (*s.sender == "" || *s.sender == "<>")
	switch from := a.settings.Message.DefaultFrom; {
	case s.sender != nil && !null:
		m.FromEmail = a.qualified(*s.sender)
	case from != "" && from != defaultFrom:
		m.FromEmail = from
	default:
		m.FromEmail = a.qualified("nobody")
		if u, err := user.Current(); err == nil {
			m.FromEmail = a.qualified(u.Username)
			if name == "" {
				name = u.Name
			}
		}
	}
	if name != "" {
		envelope, err := (&mailer.EmailMessage{FromEmail: m.FromEmail}).Envelope()
		if err != nil {
			return err
		}
		m.FromEmail = mailer.Address(name, envelope.From)
	}
	if null {
		m.Headers = map[string]string{"Return-Path": "<>"}
	}
	return nil
}

// defaultFrom is what DEFAULT_FROM_EMAIL is if nobody has set it.
const defaultFrom = "webmaster@localhost"

// readRaw reads a message from standard input as sendmail does. A "From " line, as mailbox
// files have it, is left out. A line with a dot alone ends the message, unless dots is set.
// Text that does not begin with a header is a body.
func (a *app) readRaw(dots bool) ([]byte, error) {
	input := a.std.In
	limit := int64(a.settings.Queue.MaxMessageSize)
	if limit > 0 {
		input = io.LimitReader(input, limit+1)
	}
	raw, err := io.ReadAll(input)
	if err != nil {
		return nil, cli.Exit(cli.ExitNoInput, err)
	}
	if limit > 0 && int64(len(raw)) > limit {
		return nil, cli.Exitf(cli.ExitData, "the message is bigger than EMAIL_MAX_MESSAGE_SIZE")
	}
	for bytes.HasPrefix(raw, []byte("From ")) || bytes.HasPrefix(raw, []byte(">From ")) {
		_, raw, _ = bytes.Cut(raw, []byte("\n"))
	}
	if !dots {
		raw = untilDot(raw)
	}
	return withEmptyLine(raw), nil
}

// untilDot cuts a message at a line with a dot alone.
func untilDot(raw []byte) []byte {
	at := 0
	for line := range bytes.Lines(raw) {
		if string(bytes.TrimRight(line, "\r\n")) == "." {
			return raw[:at]
		}
		at += len(line)
	}
	return raw
}

// withEmptyLine puts the empty line that ends a header before the first line that is no
// header field.
func withEmptyLine(raw []byte) []byte {
	at := 0
	for line := range bytes.Lines(raw) {
		text := bytes.TrimRight(line, "\r\n")
		if len(text) == 0 {
			return raw
		}
		if folded := at > 0 && (text[0] == ' ' || text[0] == '\t'); !folded && !isField(text) {
			break
		}
		at += len(line)
	}
	if at == len(raw) && at > 0 {
		return raw // a header alone
	}
	return append(append(bytes.Clone(raw[:at]), '\n'), raw[at:]...)
}

// isField reports whether a header field begins with this line. There may be blanks before the colon
// (RFC 5322, 4.5.1).
func isField(line []byte) bool {
	name, _, found := bytes.Cut(line, []byte(":"))
	name = bytes.TrimRight(name, " \t")
	return found && len(name) > 0 && !bytes.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' })
}
