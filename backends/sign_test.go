package backends_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	msgauth "github.com/emersion/go-msgauth/dkim"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/backends/dkim"
	"github.com/mailpouch/mailpouch/backends/locmem"
	"github.com/mailpouch/mailpouch/internal/testserver"
	postfixtest "github.com/mailpouch/mailpouch/internal/testserver/postfix"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

// signing are the settings for two keys of example.com and one of example.org, and their records, as lines of OpenDKIM's file
// for tests.
func signing(t *testing.T) (vars map[string]string, zone map[string]string) {
	t.Helper()
	dir := t.TempDir()
	zone = map[string]string{}
	var files []string
	domains, selectors := []string{"example.com", "example.com", "example.org"}, []string{"rsa", "ed", "ed"}
	for i := range domains {
		var key crypto.Signer = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i)}, ed25519.SeedSize))
		if selectors[i] == "rsa" {
			key = must(rsa.GenerateKey(rand.Reader, 2048))
		}
		path := filepath.Join(dir, fmt.Sprintf("%d.pem", i))
		text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))})
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, path)
		name, record := dkim.Key{Domain: domains[i], Selector: selectors[i], Private: key}.Record()
		zone[name] = record
	}
	return map[string]string{
		"EMAIL_DKIM_DOMAIN": strings.Join(domains, ","), "EMAIL_DKIM_SELECTOR": strings.Join(selectors, ","), "EMAIL_DKIM_KEY_FILE": strings.Join(files, ","),
	}, zone
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// signers are the domains and selectors of a message's signatures, all of which have to be good.
func signers(t *testing.T, message []byte, zone map[string]string) string {
	t.Helper()
	all, err := msgauth.VerifyWithOptions(bytes.NewReader(message), &msgauth.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
		if record, ok := zone[name]; ok {
			return []string{record}, nil
		}
		return nil, errors.New("no such name")
	}})
	if err != nil {
		t.Error(err)
	}
	var good []string
	for _, v := range all {
		if v.Err != nil {
			t.Errorf("the signature of %s: %v\n%s", v.Domain, v.Err, message)
			continue
		}
		good = append(good, v.Domain)
	}
	return strings.Join(good, " ")
}

// letters are messages that a relay may have to change, by their Message-ID, each with what has to have signed it.
func letters() (messages []*mailer.EmailMessage, want map[string]string) {
	const header = "From: Ann <ann@example.com>\nTo: bob@example.net\nSubject: raw\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"
	want = map[string]string{}
	add := func(m mailer.EmailMessage, by string) {
		m.FromEmail, m.To, m.Date = "ann@example.com", []string{"bob@example.net"}, time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
		m.MessageID = fmt.Sprintf("<%d@example.com>", len(messages))
		messages, want[m.MessageID] = append(messages, &m), by
	}
	both := "example.com example.com"
	add(mailer.EmailMessage{Subject: "plain", Body: "one\n.\n..two  \n\n\n"}, both)
	add(mailer.EmailMessage{Subject: "Grüße", Body: "Grüße, 世界\n"}, both)
	add(mailer.EmailMessage{Subject: "no body"}, both)
	add(mailer.EmailMessage{Subject: "long", Body: strings.Repeat("x", 5000) + "\n" + strings.Repeat("line\n", 20_000)}, both)
	add(mailer.EmailMessage{Subject: "file", Body: "x", Attachments: []mailer.Attachment{{Filename: "a.bin", Content: bytes.Repeat([]byte{0, 200}, 50_000)}}}, both)
	add(mailer.EmailMessage{Subject: "org", Headers: map[string]string{"From": "Ann <ann@news.example.org>"}}, "example.org")
	add(mailer.EmailMessage{Subject: "foreign", Headers: map[string]string{"From": "Ann <ann@example.net>"}}, both)
	add(mailer.EmailMessage{Raw: []byte(header + "Content-Transfer-Encoding: 8bit\n\nGrüße\n")}, both)
	add(mailer.EmailMessage{Raw: []byte(header + "\n" + strings.Repeat("ä", 3000))}, both)
	add(mailer.EmailMessage{Raw: []byte(strings.Replace(header, "raw", "Grüße", 1) + "\nplain")}, both)
	return messages, want
}

// TestSigned_postfix: what the settings sign verifies after a real Postfix has delivered it, with and without 8BITMIME, by
// OpenDKIM as its milter and by another verifier.
func TestSigned_postfix(t *testing.T) {
	for name, opts := range map[string]postfixtest.Options{
		"all":          {},
		"no 8BITMIME":  {DiscardEHLO: []string{"8BITMIME", "SMTPUTF8", "CHUNKING"}},
		"no extension": {DiscardEHLO: []string{"8BITMIME", "SMTPUTF8", "CHUNKING", "PIPELINING", "SIZE"}},
	} {
		t.Run(name, func(t *testing.T) {
			vars, zone := signing(t)
			opts.Verifier = milter(t, zone)
			server := postfixtest.Start(t, opts)
			host, port, err := net.SplitHostPort(server.Addr())
			if err != nil {
				t.Fatal(err)
			}
			vars["EMAIL_HOST"], vars["EMAIL_PORT"] = host, port
			b := must(backends.Builtin().New("smtp", load(t, vars)))
			messages, want := letters()
			if sent, err := b.SendMessages(t.Context(), messages); err != nil || sent != len(messages) {
				t.Fatalf("%d sent: %v", sent, err)
			}
			if err := server.Wait(t.Context(), len(messages)); err != nil {
				t.Fatal(err)
			}
			for _, m := range server.Messages() {
				head, _, _ := strings.Cut(string(m.Raw), "\r\n\r\n")
				_, rest, _ := strings.Cut(head, "Message-ID: ")
				id, _, _ := strings.Cut(rest, "\r\n")
				if got := signers(t, m.Raw, zone); got != want[id] || got == "" {
					t.Errorf("%s is signed by %q, want %q:\n%s", id, got, want[id], head)
				}
				if n := strings.Count(m.AuthResults, "dkim=pass"); n != len(strings.Fields(want[id])) {
					t.Errorf("%s: OpenDKIM accepts %d signatures: %s", id, n, m.AuthResults)
				}
				delete(want, id)
			}
			if len(want) > 0 {
				t.Errorf("did not arrive: %v", want)
			}
		})
	}
}

// milter starts OpenDKIM, and returns its address.
func milter(t *testing.T, zone map[string]string) string {
	t.Helper()
	path, err := testserver.LookPath("opendkim")
	if err != nil {
		testserver.Missing(t, "install opendkim (Debian: apt-get install opendkim)")
	}
	dir := t.TempDir()
	var records strings.Builder
	for name, record := range zone {
		fmt.Fprintf(&records, "%s %s\n", name, record)
	}
	if err := os.WriteFile(filepath.Join(dir, "zone"), []byte(records.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	var addr string
	var p *testserver.Process
	log := filepath.Join(dir, "log")
	readLog := func() string { text, _ := os.ReadFile(log); return string(text) }
	err = testserver.Launch(func() error {
		if p != nil {
			p.Kill()
		}
		port, err := testserver.FreePort()
		if err != nil {
			return err
		}
		addr = fmt.Sprintf("127.0.0.1:%d", port)
		conf := fmt.Sprintf("Mode v\nSyslog no\nAlwaysAddARHeader yes\nBackground no\nSocket inet:%d@127.0.0.1\nTestPublicKeys %s\n", port, filepath.Join(dir, "zone"))
		if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o600); err != nil {
			return err
		}
		if p, err = testserver.Start(exec.Command(path, "-f", "-x", filepath.Join(dir, "conf")), log); err != nil {
			return err
		}
		return testserver.Poll(t.Context(), p, func() error {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				return err
			}
			return conn.Close()
		})
	}, readLog)
	if p != nil {
		t.Cleanup(p.Kill)
	}
	if err != nil {
		t.Fatalf("opendkim: %v\n%s", err, readLog())
	}
	return addr
}

// TestSigned: whatever a backend does with a message, it gets the signed one, and a second try has the same bytes. A queue gets none.
func TestSigned(t *testing.T) {
	vars, zone := signing(t)
	vars["EMAIL_FILE_PATH"] = t.TempDir()
	vars["EMAIL_MAILERS"], vars["EMAIL_PLAIN_BACKEND"], vars["EMAIL_PLAIN_DKIM_DOMAIN"] = "plain", "locmem", "off"
	s := load(t, vars)
	outbox := new(locmem.Outbox)
	reg := backends.Builtin()
	reg["locmem"] = backends.Entry{New: func(s settings.Settings) (mailer.Backend, error) {
		return locmem.New(locmem.Config{Outbox: outbox, Defaults: backends.Defaults(s)})
	}}
	reg["queue"] = reg["locmem"]
	messages, want := letters()
	for range 2 {
		if _, err := must(reg.New("locmem", s)).SendMessages(t.Context(), messages); err != nil {
			t.Fatal(err)
		}
	}
	mails := outbox.Messages()
	for i, m := range mails {
		if got := signers(t, m.Raw, zone); got != want[m.Message.MessageID] {
			t.Errorf("%s is signed by %q", m.Message.MessageID, got)
		}
		if n := len(messages); i >= n && !bytes.Equal(m.Raw, mails[i-n].Raw) {
			t.Errorf("%s: another try has other bytes", m.Message.MessageID)
		}
		if m.Message.Raw == nil && m.Message.Subject == "" {
			t.Errorf("%s has lost its fields", m.Message.MessageID)
		}
	}
	if _, err := must(reg.New("filebased", s)).SendMessages(t.Context(), messages[1:2]); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(vars["EMAIL_FILE_PATH"], "*"))
	if len(files) != 1 {
		t.Fatalf("files: %q", files)
	}
	text, _, _ := bytes.Cut(must(os.ReadFile(files[0])), []byte("\n-----"))
	if got := signers(t, bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")), zone); got != want[messages[1].MessageID] {
		t.Errorf("what a file has is signed by %q", got)
	}
	outbox.Reset()
	plain := must(s.Named("plain"))
	for _, b := range []mailer.Backend{must(reg.New("queue", s)), must(reg.New("locmem", plain))} {
		if _, err := b.SendMessages(t.Context(), messages[:1]); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range outbox.Messages() {
		if bytes.Contains(m.Raw, []byte("DKIM-Signature")) {
			t.Errorf("signed:\n%s", m.Raw)
		}
	}
}

// TestSigned_key: a key that is gone when a backend is made is an error with the name of the setting.
func TestSigned_key(t *testing.T) {
	vars, _ := signing(t)
	s := load(t, vars)
	path := s.DKIM.KeyFiles[1]
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	_, err := backends.Builtin().Mailer(s)
	if err == nil || !strings.HasPrefix(err.Error(), "backends: smtp: EMAIL_DKIM_KEY_FILE: cannot be read: open "+path) {
		t.Errorf("got %v", err)
	}
}
