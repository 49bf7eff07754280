package workercli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mailpouch/mailpouch/intake"
	"github.com/mailpouch/mailpouch/internal/certfile"
	"github.com/mailpouch/mailpouch/internal/intakeconfig"
	"github.com/mailpouch/mailpouch/internal/publicaddr"
	"github.com/mailpouch/mailpouch/settings"
)

// tried is what there is to say of something that was tried.
type tried struct {
	what, where string
	warnings    []string
	err         error
}

// checkIntake tries the ways in for other programs, and looks at webhooks.
func checkIntake(ctx context.Context, dns *net.Resolver, s settings.Settings) (all []tried) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	line := func(what, where string, warnings []string, err error) {
		all = append(all, tried{what, where, warnings, err})
	}
	if s.Intake.On() && s.Intake.KeysFile != "" {
		warnings, err := checkKeysFile(s)
		line("Keys", s.Intake.KeysFile, warnings, err)
	}
	for _, c := range []struct {
		variable, cert, key string
		used                bool
	}{
		{"EMAIL_SUBMISSION_CERTFILE", s.Intake.CertFile, s.Intake.KeyFile, len(s.Intake.Submission) > 0},
		{"EMAIL_API_CERTFILE", s.Intake.APICertFile, s.Intake.APIKeyFile, s.Intake.API != ""},
	} {
		if c.used && c.cert != "" {
			of, warnings, err := checkCertificate(c.cert, c.key)
			line("Certificate", strings.TrimSpace(c.variable+" "+of), warnings, err)
		}
	}
	for _, l := range s.Intake.Submission {
		warnings, err := checkPort(ctx, l.Network, l.Address)
		line("SMTP", l.String(), warnings, err)
	}
	if s.Intake.API != "" {
		warnings, err := checkPort(ctx, "tcp", s.Intake.API)
		line("API", s.Intake.API, warnings, err)
	}
	if len(s.Events.URLs.All()) > 0 {
		cfg, err := intakeconfig.Webhooks(s)
		if err != nil {
			line("Webhooks", s.Events.URLs.String(), nil, err)
		}
		for _, t := range cfg.Targets {
			line("Webhook", t.Name(), nil, checkEndpoint(ctx, dns, t.URL(), s.Events.Private))
		}
	}
	return all
}

// checkKeysFile reads the keys, and looks at what they name.
func checkKeysFile(s settings.Settings) (warnings []string, err error) {
	keys, err := intake.ReadKeysFile(s.Intake.KeysFile)
	if err != nil {
		return nil, err
	}
	if len(keys.All()) == 0 {
		warnings = append(warnings, "there is no key in it, so nobody can log in: worker key new makes one")
	}
	for _, k := range keys.All() {
		if k.Mailer != "" && k.Mailer != settings.DefaultMailer && !slices.Contains(s.Mailers(), k.Mailer) {
			fate := "is refused"
			if len(s.Mailers()) == 0 { // any name is passed on
				fate = "ends as dead letters, unless workers with other settings take it"
			}
			warnings = append(warnings, fmt.Sprintf("key %s: EMAIL_MAILERS does not have its mailer %s, so its mail %s", k.Name, k.Mailer, fate))
		}
		if k.Queue != "" && s.Worker.Queues[k.Queue] == 0 {
			warnings = append(warnings, fmt.Sprintf("key %s: a worker with these settings takes nothing from its queue %s (EMAIL_QUEUES)", k.Name, k.Queue))
		}
	}
	if info, err := os.Stat(s.Intake.KeysFile); err == nil && info.Mode().Perm()&0o022 != 0 {
		warnings = append(warnings, "others than its owner can write it: who can adds keys of their own")
	}
	return warnings, nil
}

// checkCertificate reads a certificate and its key, and says for which names it is, and until when.
func checkCertificate(cert, key string) (of string, warnings []string, err error) {
	c, err := certfile.Read(cert, key)
	if err != nil {
		return "", nil, err
	}
	if w := c.Warning(expirySoon); w != "" {
		warnings = append(warnings, w)
	}
	leaf := c.Leaf()
	return fmt.Sprintf("for %s until %s", strings.Join(leaf.DNSNames, ", "), leaf.NotAfter.UTC().Format(time.DateOnly)), warnings, nil
}

// checkPort tries to listen. That somebody does is most often the worker that runs, so it is a warning.
func checkPort(ctx context.Context, network, address string) (warnings []string, err error) {
	if network == "unix" {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		switch {
		case err == nil:
			_ = conn.Close()
			return []string{inUse}, nil
		case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED): // it is made, or one that was left behind is replaced
			_, err = os.Stat(filepath.Dir(address))
			return nil, err
		}
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, network, address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return []string{inUse}, nil
	case err != nil:
		return nil, err
	}
	return nil, l.Close()
}

const inUse = "somebody listens there already: a worker that runs, or another program"

// checkEndpoint looks the host of a webhook up. Nothing is posted.
func checkEndpoint(ctx context.Context, dns *net.Resolver, address string, private bool) error {
	u, err := url.Parse(address)
	if err != nil {
		return errors.New("is not a URL") // the error would repeat it
	}
	addrs, err := dns.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return err
	}
	for _, addr := range addrs {
		if private || publicaddr.Is(addr.Unmap()) {
			return nil // the dialer takes the next one
		}
	}
	return fmt.Errorf("its name means %v, which is no public address: nothing is posted there unless EMAIL_WEBHOOK_ALLOW_PRIVATE allows it", addrs[0])
}
