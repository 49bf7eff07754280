package settings

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func keyFile(t *testing.T, key crypto.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func ed25519File(t *testing.T) string {
	t.Helper()
	return keyFile(t, ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
}

// TestDKIM: what is there once is for all, and a named mailer has the keys of the default one unless it says otherwise.
func TestDKIM(t *testing.T) {
	key, other := ed25519File(t), ed25519File(t)
	s, warnings := load(t, map[string]string{
		"EMAIL_DKIM_DOMAIN": "example.com, example.org", "EMAIL_DKIM_SELECTOR": "mail", "EMAIL_DKIM_KEY_FILE": key + "," + other,
		"EMAIL_MAILERS": "a,b,c", "EMAIL_A_HOST": "a", "EMAIL_B_HOST": "b", "EMAIL_C_HOST": "c",
		"EMAIL_B_DKIM_DOMAIN": "off", "EMAIL_C_DKIM_DOMAIN": "bücher.example", "EMAIL_C_DKIM_SELECTOR": "one,two",
	})
	if len(warnings) > 0 {
		t.Errorf("warnings: %q", warnings)
	}
	all := []DKIMKey{{"example.com", "mail", key}, {"example.org", "mail", other}}
	for name, want := range map[string][]DKIMKey{
		"": all, "a": all, "b": nil, "c": {{"bücher.example", "one", key}, {"bücher.example", "two", other}},
	} {
		if got := mustNamed(t, s, name).DKIM.Keys(); !slices.Equal(got, want) {
			t.Errorf("mailer %q: got %v, want %v", name, got, want)
		}
	}
	if s := Default(); s.DKIM.On() || s.DKIM.Keys() != nil {
		t.Error("it signs without being told to")
	}
}

func TestDKIM_problems(t *testing.T) {
	good := ed25519File(t)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weak := keyFile(t, small)
	none := filepath.Join(t.TempDir(), "none.pem")
	text := filepath.Join(t.TempDir(), "text.pem")
	if err := os.WriteFile(text, []byte("mail"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		domain, selector, file string
		more                   map[string]string
		want                   []string // what the lines begin with
	}{
		"no domain":    {"", "one", good, nil, []string{"EMAIL_DKIM_DOMAIN: is not set, and EMAIL_DKIM_SELECTOR is: set the domain that signs, or off"}},
		"only domain":  {"example.com", "", "", nil, []string{"EMAIL_DKIM_SELECTOR: is not set: signing for example.com takes", "EMAIL_DKIM_KEY_FILE: is not set"}},
		"lengths":      {"a.example,b.example,c.example", "one,two", good, nil, []string{"EMAIL_DKIM_SELECTOR: has 2 entries, and the longest of"}},
		"empty entry":  {"a.example,,b.example", "one", good, nil, []string{"EMAIL_DKIM_DOMAIN: has an empty entry"}},
		"domain":       {"ann@example.com", "one", good, nil, []string{`EMAIL_DKIM_DOMAIN: "ann@example.com" is no domain`}},
		"off and more": {"example.com,off", "one", good, nil, []string{`EMAIL_DKIM_DOMAIN: "off" is no domain`}},
		"selector":     {"example.com", "one two", good, nil, []string{`EMAIL_DKIM_SELECTOR: "one two" is no selector`}},
		"twice":        {"example.com,EXAMPLE.com", "one", good, nil, []string{"EMAIL_DKIM_SELECTOR: one is there twice for EXAMPLE.com"}},
		"no file":      {"example.com", "one", none, nil, []string{"EMAIL_DKIM_KEY_FILE: cannot be read: open " + none}},
		"no key":       {"example.com", "one,two", good + "," + text, nil, []string{"EMAIL_DKIM_KEY_FILE: " + text + " holds no private key in PEM"}},
		"weak":         {"example.com", "one", weak, nil, []string{"EMAIL_DKIM_KEY_FILE: " + weak + " is an RSA key of 1024 bits: 2048 are the least"}},
		"of a mailer": {"example.com", "one", good, map[string]string{"EMAIL_M_DKIM_KEY_FILE": none, "EMAIL_N_DKIM_SELECTOR": "a,b,c", "EMAIL_N_DKIM_KEY_FILE": good + "," + good},
			[]string{"EMAIL_M_DKIM_KEY_FILE: cannot be read", "EMAIL_N_DKIM_KEY_FILE: has 2 entries"}},
	} {
		t.Run(name, func(t *testing.T) {
			vars := map[string]string{
				"EMAIL_DKIM_DOMAIN": tt.domain, "EMAIL_DKIM_SELECTOR": tt.selector, "EMAIL_DKIM_KEY_FILE": tt.file,
				"EMAIL_MAILERS": "m,n", "EMAIL_M_HOST": "m", "EMAIL_N_HOST": "n",
			}
			for name, value := range tt.more {
				vars[name] = value
			}
			setenv(t, vars)
			_, _, err := Load()
			var problems Problems
			if !errors.As(err, &problems) || len(problems) != len(tt.want) {
				t.Fatalf("got %v", err)
			}
			for i, p := range problems {
				if !strings.HasPrefix(p.Error(), tt.want[i]) {
					t.Errorf("got %q\nwant %q...", p.Error(), tt.want[i])
				}
			}
			// A program that leaves its mail to a worker does not sign: its files are only a warning.
			if vars["EMAIL_BACKEND"] = "queue"; len(tt.want) == 1 && strings.HasPrefix(tt.want[0], "EMAIL_DKIM_KEY_FILE: ") {
				if _, warnings := load(t, vars); len(warnings) != 1 || !strings.HasPrefix(warnings[0], tt.want[0]) {
					t.Errorf("warnings: %q", warnings)
				}
			}
		})
	}
}
