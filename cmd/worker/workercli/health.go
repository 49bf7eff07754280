package workercli

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/settings"
)

func healthCommand(std cli.Streams, registry backends.Registry) *cobra.Command {
	var ready bool
	var address string
	c := &cobra.Command{
		Use:   "health",
		Short: "Ask the worker on this machine whether it is alive",
		Long: `Ask the worker on this machine, at EMAIL_HTTP_ADDR, whether it is alive. It is what a
container's health check runs, as its image has no other program that could ask.

Exit codes: 0 yes, 64 usage, 69 no or no answer, 78 a setting is wrong.`,
		Example: `  worker health
  worker health --ready                              (and can it deliver?)
  worker health --url http://127.0.0.1:8080/         (another program)`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case ready && address != "":
				return cli.Exitf(cli.ExitUsage, "--ready is a question for the worker, and --url asks something else")
			case address != "":
				return health(c.Context(), std.Out, address, "")
			}
			s, _, err := registry.Load() // the worker itself prints the warnings
			if err != nil {
				return err
			}
			if address, err = healthURL(s.HTTP.Addr, ready); err != nil {
				return err
			}
			return health(c.Context(), std.Out, address, credentials(s.HTTP))
		},
	}
	c.Flags().BoolVar(&ready, "ready", false, "ask whether it is ready to deliver (/readyz): Redis and the mail servers can be reached")
	c.Flags().StringVar(&address, "url", "", "ask at this `address` instead; an answer of 200 to 299 is a yes")
	return c
}

// healthURL is where the worker that listens on addr answers.
func healthURL(addr string, ready bool) (string, error) {
	if addr == settings.HTTPOff {
		return "", cli.Exitf(cli.ExitConfig, "EMAIL_HTTP_ADDR is off: there is nobody to ask")
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", cli.Exitf(cli.ExitConfig, "EMAIL_HTTP_ADDR: %w", err)
	}
	// The address of all interfaces is one to listen on, not one to ask.
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip.Is6() {
			host = "::1"
		}
	}
	path := "/healthz"
	if ready {
		path = "/readyz"
	}
	u := url.URL{Scheme: "http", Host: net.JoinHostPort(host, port), Path: path}
	return u.String(), nil
}

// credentials is the Authorization header with which /readyz shows details: what is wrong,
// and not only that something is.
func credentials(s settings.HTTP) string {
	if token := s.Token.Reveal(); token != "" {
		return "Bearer " + token
	}
	if password := s.Password.Reveal(); password != "" {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte("worker:"+password))
	}
	return ""
}

// healthPatience is shorter than the usual limit of a health check, so that its log shows
// our message instead of a kill.
const healthPatience = 4 * time.Second

func health(ctx context.Context, w io.Writer, address, authorization string) error {
	ctx, cancel := context.WithTimeout(ctx, healthPatience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return cli.Exit(cli.ExitUsage, err)
	}
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	transport := &http.Transport{DisableKeepAlives: true} // and no proxy
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // another address is not an answer
	}}
	response, err := client.Do(request)
	if err != nil {
		return cli.Exit(cli.ExitUnavailable, err)
	}
	defer func() { _ = response.Body.Close() }()
	answer := fmt.Sprintf("%s: %s", address, response.Status)
	if response.StatusCode/100 != 2 {
		body, _ := io.ReadAll(io.LimitReader(response.Body, 2048))
		return cli.Exitf(cli.ExitUnavailable, "%s: %s", answer, strings.Join(strings.Fields(redact.Line(string(body))), " "))
	}
	fmt.Fprintln(w, answer)
	return nil
}
