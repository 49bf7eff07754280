package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/mailer"
)

// draft is a message as the flags of send describe it.
type draft struct {
	message  mailer.EmailMessage
	bodyFile string
	htmlFile string
	attach   []string
	headers  []string
	lists    lists
}

func (a *app) sendCommand() *cobra.Command {
	var d draft
	var o options
	c := &cobra.Command{
		Use:   "send",
		Short: "Queue one message and print its task's ID",
		Long: `Queue one message and print its task's ID.

With --idempotency-key the same message is queued once, however often the command is
repeated, until EMAIL_IDEMPOTENCY_WINDOW after it was sent: the first task's ID is
printed again. Another message with the same key is refused (exit code 65), and so is
one whose first task is a dead letter: enqueue dead replay sends that again. Each queue
has keys of its own. With --unique the content itself is the key.`,
		Example: `  enqueue send --to ann@example.com --subject Hello --body "It works."
  enqueue send --to "Ann <ann@example.com>" --subject Report --body-file - --attach report.pdf < text.txt
  enqueue send --to ann@example.com --subject Hello --body "Hello." --html-file hello.html
  enqueue send --to ann@example.com --subject "Happy new year" --body "..." --process-at 2027-01-01T00:00:00Z
  enqueue send --to ann@example.com --subject "Your order" --body "..." --idempotency-key order-1234
  enqueue send --to ann@example.com --subject News --body "..." --unsubscribe-url https://example.com/u/Zm9v --one-click --verp bounces@example.com`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.send(c, d, o) },
	}
	m := &d.message
	f := c.Flags()
	f.StringVar(&m.FromEmail, "from", "", "sender (default: DEFAULT_FROM_EMAIL)")
	f.StringArrayVar(&m.To, "to", nil, "recipient; may be repeated")
	f.StringArrayVar(&m.Cc, "cc", nil, "recipient of a copy; may be repeated")
	f.StringArrayVar(&m.Bcc, "bcc", nil, "recipient whom nobody sees; may be repeated")
	f.StringArrayVar(&m.ReplyTo, "reply-to", nil, "where answers go; may be repeated")
	f.StringVar(&m.Subject, "subject", "", "subject")
	f.StringVar(&m.Body, "body", "", "text of the message")
	f.StringVar(&d.bodyFile, "body-file", "", "file with the text, - for standard input")
	f.StringVar(&d.htmlFile, "html-file", "", "file with the text as HTML, - for standard input")
	f.StringArrayVar(&d.attach, "attach", nil, "file to attach; may be repeated")
	f.StringArrayVar(&d.headers, "header", nil, `header field, such as "X-Campaign: spring"; may be repeated`)
	f.StringVar(&m.Charset, "charset", "", "charset (default: DEFAULT_CHARSET)")
	f.BoolVar(&m.FailSilently, "fail-silently", false, "try once, and log a failure instead of keeping it")
	d.lists.addFlags(c, "")
	o.addFlags(c)
	o.addKeyFlag(c)
	return c
}

func (a *app) send(c *cobra.Command, d draft, o options) error {
	queueOptions, err := o.read()
	if err != nil {
		return cli.Exit(cli.ExitUsage, err)
	}
	m, err := a.compose(d)
	if err != nil {
		return err
	}
	if err := a.connect(c.Context()); err != nil {
		return err
	}
	defer a.close()
	id, err := handedOver(a.queue(queueOptions).Enqueue(c.Context(), m))
	if err != nil {
		return err
	}
	fmt.Fprintln(a.std.Out, id)
	return nil
}

// compose makes the message that the flags describe.
func (a *app) compose(d draft) (*mailer.EmailMessage, error) {
	m := &d.message
	d.lists.apply(m)
	if len(m.Recipients()) == 0 {
		return nil, cli.Exitf(cli.ExitUsage, "nobody to send to: give --to, --cc or --bcc")
	}
	if m.Body != "" && d.bodyFile != "" {
		return nil, cli.Exitf(cli.ExitUsage, "--body and --body-file exclude each other")
	}
	if d.bodyFile == "-" && d.htmlFile == "-" {
		return nil, cli.Exitf(cli.ExitUsage, "--body-file and --html-file cannot both be standard input")
	}
	if d.bodyFile != "" {
		text, err := a.readInput(d.bodyFile)
		if err != nil {
			return nil, err
		}
		m.Body = text
	}
	if d.htmlFile != "" {
		html, err := a.readInput(d.htmlFile)
		if err != nil {
			return nil, err
		}
		m.AttachAlternative(html, "text/html")
	}
	for _, h := range d.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return nil, cli.Exitf(cli.ExitUsage, `--header: "Name: value" is expected`) // not repeated: its value may be secret
		}
		if m.Headers == nil {
			m.Headers = map[string]string{}
		}
		m.Headers[name] = strings.TrimPrefix(value, " ")
	}
	for _, path := range d.attach {
		if err := m.AttachFile(path, ""); err != nil {
			var pathError *fs.PathError
			if errors.As(err, &pathError) {
				return nil, cli.Exitf(cli.ExitNoInput, "--attach %s: %w", path, pathError.Err)
			}
			return nil, cli.Exit(cli.ExitNoInput, err)
		}
	}
	return m, nil
}
