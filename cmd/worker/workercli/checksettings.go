package workercli

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/backends/dkim"
	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/internal/hostname"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

// printSettings prints the settings that are changed, and behind them the others if all are asked for.
func printSettings(w io.Writer, s settings.Settings, all bool) {
	var changed, rest []settings.Setting
	for _, d := range settings.Describe(s) {
		if d.Source == settings.FromDefault || d.Source == settings.FromDefaultMailer {
			rest = append(rest, d)
		} else {
			changed = append(changed, d)
		}
	}
	shown := changed
	if all {
		shown = slices.Concat(changed, rest)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, d := range shown {
		fmt.Fprintf(t, "%s\t%s\t%s\n", d.Name, cli.Line(d.Value), cli.Line(strings.TrimSpace(string(d.Source)+" "+d.File)))
	}
	_ = t.Flush()
	if !all {
		fmt.Fprintf(w, "%d settings are not changed (worker check --all prints them)\n", len(rest))
	}
}

// settingWarnings says what is allowed, works with some relays, and is rarely meant.
func settingWarnings(ctx context.Context, s settings.Settings, registry backends.Registry) []string {
	var warnings []string
	if name := s.Delivery.Backend; name != "queue" {
		if _, known := registry[name]; !known {
			_, err := registry.New(name, s)
			warnings = append(warnings, fmt.Sprintf("EMAIL_BACKEND: %v. A program with these settings has to add it, or cannot start", err))
		}
	}
	warnings = append(warnings, senderWarnings(s)...)
	warnings = append(warnings, unsignedWarnings(s)...)
	if usesSMTP(s) {
		warnings = append(warnings, nameWarnings(s, backends.Hostname(ctx, s))...)
	}
	return warnings
}

func usesSMTP(s settings.Settings) bool {
	return slices.ContainsFunc(append([]string{""}, s.Mailers()...), func(name string) bool {
		named, err := s.Named(name)
		return err == nil && named.Worker.Backend == "smtp"
	})
}

// senderWarnings are about senders that a relay elsewhere does not take.
func senderWarnings(s settings.Settings) []string {
	var warnings []string
	set := sendersSet(s)
	isSet := func(variable string) bool {
		return slices.ContainsFunc(set, func(from sender) bool { return from.variable == variable })
	}
	if !isSet("DEFAULT_FROM_EMAIL") {
		warnings = append(warnings, "DEFAULT_FROM_EMAIL is not set: a message that names no sender is from "+s.Message.DefaultFrom+", which most relays refuse")
	}
	if !isSet("SERVER_EMAIL") && len(s.Message.Admins)+len(s.Message.Managers) > 0 {
		warnings = append(warnings, "SERVER_EMAIL is not set: mail to ADMINS and MANAGERS is from "+s.Message.ServerEmail+", which most relays refuse")
	}
	for _, from := range set {
		envelope, err := (&mailer.EmailMessage{FromEmail: from.address}).Envelope()
		if err != nil {
			warnings = append(warnings, fmt.Sprintf("%s: %v", from.variable, err))
			continue
		}
		switch _, domain, found := cutLast(envelope.From, "@"); {
		case !found:
			warnings = append(warnings, from.variable+": "+from.address+" has no domain: most relays refuse it")
		case !strings.HasPrefix(domain, "[") && hostname.IsPrivate(domain):
			warnings = append(warnings, from.variable+": no other network knows the domain "+domain+": most relays refuse it")
		}
	}
	return warnings
}

// unsignedWarnings are about senders for whose domain no key signs.
func unsignedWarnings(s settings.Settings) []string {
	keys := s.DKIM.Keys()
	if len(keys) == 0 {
		return nil
	}
	var warnings []string
	for _, from := range sendersSet(s) {
		envelope, err := (&mailer.EmailMessage{FromEmail: from.address}).Envelope()
		if err != nil {
			continue // there is a warning already
		}
		domain := envelope.From[strings.LastIndexByte(envelope.From, '@')+1:]
		aligned := func(k settings.DKIMKey) bool { return dkim.Aligned(asciiDomain(k.Domain), strings.ToLower(domain)) }
		if !slices.ContainsFunc(keys, aligned) {
			warnings = append(warnings, fmt.Sprintf("%s: no key is for %s, so its mail is signed by %s, which does not count for DMARC",
				from.variable, domain, keys[0].Domain))
		}
	}
	return warnings
}

// cutLast is strings.Cut around the last sep.
func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// nameWarnings are about the name that this machine says in EHLO and has in Message-IDs; it is "" if the machine has none with a domain.
func nameWarnings(s settings.Settings, name string) []string {
	switch {
	case name == "":
		system, _ := os.Hostname()
		return []string{fmt.Sprintf("EMAIL_HOSTNAME is not set, and this machine (%s) has no name with a domain: EHLO says its address, and Message-IDs "+
			"and the addresses that sendmail completes end in @%s, which most relays refuse; set EMAIL_HOSTNAME to a name that the DNS has",
			system, mailer.Defaults{}.Domain())}
	case strings.HasPrefix(name, "["), !hostname.IsPrivate(name):
		return nil
	case s.Message.Hostname != "":
		return []string{"EMAIL_HOSTNAME: no other network knows the name " + name + ": most relays refuse it in EHLO"}
	}
	return []string{"no other network knows the name of this machine, " + name + ": most relays refuse it in EHLO; set EMAIL_HOSTNAME to a name that the DNS has"}
}

type sender struct{ variable, address string }

func sendersSet(s settings.Settings) []sender {
	var set []sender
	for _, d := range settings.Describe(s) {
		if (d.Name == "DEFAULT_FROM_EMAIL" || d.Name == "SERVER_EMAIL") && d.Source != settings.FromDefault {
			address := s.Message.DefaultFrom
			if d.Name == "SERVER_EMAIL" {
				address = s.Message.ServerEmail
			}
			set = append(set, sender{d.Name, address})
		}
	}
	return set
}
