package workercli

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/net/idna"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/internal/dkimkey"
	"github.com/mailpouch/mailpouch/internal/hostname"
	"github.com/mailpouch/mailpouch/settings"
)

func dkimCommand(std cli.Streams, registry backends.Registry) *cobra.Command {
	c := &cobra.Command{
		Use:   "dkim",
		Short: "Make a key for DKIM, and print what the DNS has to publish",
		Long: `DKIM signs what a worker sends, with the keys that EMAIL_DKIM_DOMAIN,
EMAIL_DKIM_SELECTOR and EMAIL_DKIM_KEY_FILE name. "worker check" looks whether the
DNS has their records.`,
		Args: cobra.NoArgs,
	}
	c.AddCommand(dkimKeyCommand(std), dkimRecordsCommand(std, registry))
	return c
}

// The kinds of keys.
const (
	kindRSA     = "rsa"
	kindEd25519 = "ed25519"
)

func dkimKeyCommand(std cli.Streams) *cobra.Command {
	var domain, selector, kind string
	c := &cobra.Command{
		Use:   "key --domain DOMAIN --selector NAME FILE",
		Short: "Make a private key, and print its record for the DNS",
		Long: `Make a private key and write it to FILE, which must not exist yet and which only its
owner can read. Print the record for the DNS as a line of a zone file, and the
settings to use the key with.

An RSA key is verified by all receivers. An Ed25519 key makes short signatures, and
many large receivers do not know it yet: use it beside an RSA key, not in its place.`,
		Example: `  worker dkim key --domain example.com --selector 2026-11 /etc/mailpouch/dkim-2026-11.pem`,
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			switch {
			case !hostname.IsASCII(domain):
				return cli.Exitf(cli.ExitUsage, "--domain: %q is no domain, such as example.com (in punycode, if it is not ASCII)", domain)
			case !hostname.IsASCII(selector):
				return cli.Exitf(cli.ExitUsage, "--selector: %q is no selector, which is a name in the DNS, such as 2026-11", selector)
			}
			key, err := newKey(kind)
			if err != nil {
				return err
			}
			if err := writeKey(args[0], key); err != nil {
				return err
			}
			fmt.Fprintf(std.Out, "%s\n\nEMAIL_DKIM_DOMAIN=%s\nEMAIL_DKIM_SELECTOR=%s\nEMAIL_DKIM_KEY_FILE=%s\n",
				dkimkey.Zone(selector, domain, key), domain, selector, cli.Line(args[0]))
			return nil
		},
	}
	c.Flags().StringVar(&domain, "domain", "", "the `domain` that is to sign, that of From")
	c.Flags().StringVar(&selector, "selector", "", "the `name` of the key in the DNS; a new key has a new one")
	c.Flags().StringVar(&kind, "type", kindRSA, "the `type` of the key: rsa (2048 bits) or ed25519")
	return c
}

func newKey(kind string) (crypto.Signer, error) {
	switch kind {
	case kindRSA:
		return rsa.GenerateKey(rand.Reader, dkimkey.MinBits)
	case kindEd25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, cli.Exitf(cli.ExitUsage, "--type: %q is neither %s nor %s", kind, kindRSA, kindEd25519)
}

// writeKey never writes over a file: the key in it may be in use.
func writeKey(path string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the administrator names the file
	if errors.Is(err, fs.ErrExist) {
		return cli.Exitf(cli.ExitUsage, "%s exists, and may be a key that is in use: name another file", path)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	return errors.Join(err, f.Close())
}

func dkimRecordsCommand(std cli.Streams, registry backends.Registry) *cobra.Command {
	return &cobra.Command{
		Use:   "records",
		Short: "Print the records that the DNS has to have for the keys of the settings",
		Long: `Print the records that the DNS has to have for the keys of the settings, of the default
mailer and of all others, as lines of a zone file.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			s, err := cli.Settings(std, registry.Load)
			if err != nil {
				return err
			}
			keys, err := dkimKeys(s)
			if err != nil {
				return err
			}
			if len(keys) == 0 {
				return cli.Exitf(cli.ExitConfig, "EMAIL_DKIM_DOMAIN is not set: nothing is signed")
			}
			for _, k := range keys {
				fmt.Fprintln(std.Out, dkimkey.Zone(k.Selector, k.Domain, k.private))
			}
			return nil
		},
	}
}

// asciiDomain is a domain as the DNS has it.
func asciiDomain(domain string) string {
	if ascii, err := idna.Lookup.ToASCII(domain); err == nil {
		return ascii
	}
	return domain
}

// dkimKey is a key that some mailer signs with.
type dkimKey struct {
	settings.DKIMKey

	private crypto.Signer
}

// dkimKeys reads the keys of all mailers, each once.
func dkimKeys(s settings.Settings) ([]dkimKey, error) {
	var keys []dkimKey
	seen := map[settings.DKIMKey]bool{}
	for _, name := range append([]string{""}, s.Mailers()...) {
		named, err := s.Named(name)
		if err != nil {
			continue // it is reported where the mailer is tried
		}
		for _, k := range named.DKIM.Keys() {
			if seen[k] {
				continue
			}
			seen[k] = true
			private, err := dkimkey.Read(k.File)
			if err != nil {
				return nil, cli.Exitf(cli.ExitConfig, "%s: %w", named.Variable("EMAIL_DKIM_KEY_FILE"), err)
			}
			k.Domain = asciiDomain(k.Domain)
			keys = append(keys, dkimKey{k, private})
		}
	}
	return keys, nil
}

// recordNames are the names of the records of the keys that sign a mailer's messages.
func recordNames(s settings.Settings) []string {
	keys := s.DKIM.Keys()
	names := make([]string, 0, len(keys))
	for _, k := range keys {
		names = append(names, dkimkey.Name(k.Selector, asciiDomain(k.Domain)))
	}
	return names
}
