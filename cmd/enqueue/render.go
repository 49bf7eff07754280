package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/internal/cli"
)

func (a *app) renderCommand() *cobra.Command {
	var recipients bool
	c := &cobra.Command{
		Use:   "render FILE|-",
		Short: "Print the finished message of one JSON message; send nothing",
		Long: `Print the finished message (RFC 5322) of one JSON message, as a server would get
it. Nothing is queued or sent, and no Redis is needed.`,
		Example: `  enqueue render message.json
  echo '{"subject": "Hello", "body": "It works.", "to": ["ann@example.com"]}' | enqueue render -
  enqueue render --recipients message.json`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return a.render(c.Context(), args[0], recipients) },
	}
	c.Flags().BoolVar(&recipients, "recipients", false, "print the envelope's recipients instead, one a line")
	return c
}

func (a *app) render(ctx context.Context, file string, recipients bool) error {
	if err := a.load(ctx); err != nil {
		return err
	}
	text, err := a.readInput(file)
	if err != nil {
		return err
	}
	e, err := parseEntry([]byte(text), options{})
	if err != nil {
		return err
	}
	m, out := e.message.WithDefaults(a.defaults), cli.Shown(a.std.Out)
	if !recipients {
		_, err := m.WriteTo(out)
		return err
	}
	if err := m.Validate(); err != nil {
		return err
	}
	envelope, err := m.Envelope()
	if err != nil {
		return err
	}
	for _, address := range envelope.To {
		fmt.Fprintln(out, address)
	}
	return nil
}
