package workercli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/backends/smtp/oauth"
	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/settings"
)

// refreshFile is the setting that names the file that a login writes.
const refreshFile = "EMAIL_OAUTH_REFRESH_TOKEN_FILE"

func oauthCommand(std cli.Streams, registry backends.Registry) *cobra.Command {
	c := &cobra.Command{
		Use:   "oauth",
		Short: "Let a person agree that mail is sent in their name (OAuth 2)",
		Long: `Let a person agree that mail is sent in their name (OAuth 2). It takes the settings
EMAIL_OAUTH_...; docs/oauth.md says step by step what Microsoft and Google want.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			fmt.Fprint(std.Err, c.UsageString())
			return cli.Exitf(cli.ExitUsage, "a command is expected")
		},
	}
	c.AddCommand(oauthLoginCommand(std, registry))
	return c
}

func oauthLoginCommand(std cli.Streams, registry backends.Registry) *cobra.Command {
	var using string
	var port int
	c := &cobra.Command{
		Use:   "login",
		Short: "Show where to agree, wait, and write the refresh token to its file",
		Long: `Show where to agree, wait, and write the refresh token to the file that
EMAIL_OAUTH_REFRESH_TOKEN_FILE names, with the mode 0600. Workers that run use it at
once.

Where the provider has device codes (Microsoft, and a custom one with
EMAIL_OAUTH_DEVICE_URL) the browser may be on any machine. Google has none for mail:
the browser has to be on this machine, or reach its port as with
ssh -L 8765:127.0.0.1:8765.`,
		Example: `  worker oauth login
  worker oauth login --mailer marketing
  worker oauth login --port 8765`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := cli.Settings(std, registry.Load)
			if err != nil {
				return err
			}
			if s, err = s.Named(using); err != nil {
				return err
			}
			return oauthLogin(c.Context(), std, s, port)
		},
	}
	c.Flags().StringVar(&using, "mailer", "", "the mailer of EMAIL_MAILERS to do it for")
	c.Flags().IntVar(&port, "port", 0, "the port of 127.0.0.1 that the browser calls (Google); any free one if it is not given")
	return c
}

func oauthLogin(ctx context.Context, std cli.Streams, s settings.Settings, port int) error {
	if !s.OAuth.On() {
		return settings.Problems{{Name: s.Variable("EMAIL_OAUTH"), Text: "is off: set it to microsoft, google or custom"}}
	}
	cfg, err := backends.OAuth(s)
	switch {
	case err != nil:
		return err
	case cfg.RefreshTokenFile == "":
		return settings.Problems{{Name: s.Variable(refreshFile), Text: "is missing: the file to write the refresh token to"}}
	case cfg.Provider == oauth.Custom && cfg.DeviceURL == "":
		return settings.Problems{{Name: s.Variable("EMAIL_OAUTH_DEVICE_URL"), Text: "is missing: the provider's endpoint for device codes"}}
	}
	token, err := agreed(ctx, std, cfg, s.SMTP.User, port)
	if err != nil {
		return loginFailed(err)
	}
	if err := oauth.WriteTokenFile(cfg.RefreshTokenFile, token); err != nil {
		return cli.Exitf(cli.ExitUnavailable, "%s: %w", s.Variable(refreshFile), err)
	}
	fmt.Fprintf(std.Out, "Written: %s. `worker check` tries it.\n", cli.Line(cfg.RefreshTokenFile))
	return nil
}

// agreed lets a person agree, and returns the refresh token.
func agreed(ctx context.Context, std cli.Streams, cfg oauth.Config, user string, port int) (string, error) {
	if cfg.Provider == oauth.Google {
		return oauth.LoginByBrowser(ctx, cfg, port, func(url string) {
			fmt.Fprintf(std.Out, "Open this address in a browser on this machine, and agree as %s:\n\n  %s\n\nWaiting.\n", cli.Line(user), cli.Line(url))
		})
	}
	return oauth.LoginByDevice(ctx, cfg, func(code oauth.DeviceCode) {
		fmt.Fprintf(std.Out, "Open  %s\nEnter %s\nand agree as %s. The code is good for %v.\n\nWaiting.\n",
			cli.Line(code.URL), cli.Line(code.Code), cli.Line(user), time.Until(code.Expires).Round(time.Second))
	})
}

// loginFailed gives a failed login its exit code.
func loginFailed(err error) error {
	var refused *oauth.Error
	switch {
	case errors.As(err, &refused) && refused.Refused && refused.Code != "expired_token" && refused.Code != "access_denied":
		return cli.Exit(cli.ExitConfig, err)
	case errors.As(err, &refused) && refused.Refused:
		return cli.Exit(cli.ExitTempFail, err)
	}
	return cli.Exit(cli.ExitUnavailable, err)
}
