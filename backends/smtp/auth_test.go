package smtp

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/mailpouch/mailpouch/backends/smtp/internal/auth"
	"github.com/mailpouch/mailpouch/mailer"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func unb64(s string) string {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return "not base64: " + s
	}
	return string(b)
}

// knows returns the server's side of the mechanisms, for one user.
func knows(user, password, token string) func(mech, initial string, ask func(challenge string) string) bool {
	return func(mech, initial string, ask func(string) string) bool {
		answer := func() string {
			if initial == "" {
				return ask("")
			}
			return unb64(initial)
		}
		switch mech {
		case "PLAIN":
			return answer() == "\x00"+user+"\x00"+password
		case "LOGIN":
			name := unb64(initial)
			if initial == "" {
				name = ask("User Name")
			}
			return name == user && ask("password:") == password
		case "CRAM-MD5":
			m := hmac.New(md5.New, []byte(password))
			m.Write([]byte("<1@peer>"))
			return ask("<1@peer>") == user+" "+hex.EncodeToString(m.Sum(nil))
		case "XOAUTH2":
			if answer() != "user="+user+"\x01auth=Bearer "+token+"\x01\x01" {
				return ask(`{"status":"401"}`) == "never"
			}
			return true
		case "OAUTHBEARER":
			if answer() != "n,a="+strings.NewReplacer(",", "=2C", "=", "=3D").Replace(user)+",\x01host=peer.example\x01port=25\x01auth=Bearer "+token+"\x01\x01" {
				return ask(`{"status":"invalid_token"}`) == "never"
			}
			return true
		case "SCRAM-SHA-256":
			return scramServer(answer(), password, true, ask)
		}
		return false
	}
}

// scramServer is RFC 5802 from the other side. honest reports whether it knows the password.
func scramServer(first, password string, honest bool, ask func(string) string) bool {
	bare := strings.TrimPrefix(first, "n,,")
	_, nonce, _ := strings.Cut(bare, ",r=")
	nonce += "server"
	serverFirst := "r=" + nonce + ",s=" + b64("salt") + ",i=4096"
	final := ask(serverFirst)
	withoutProof, proof, _ := strings.Cut(final, ",p=")
	salted, err := pbkdf2.Key(sha256.New, password, []byte("salt"), 4096, 32)
	if err != nil {
		return false
	}
	mac := func(key []byte, s string) []byte {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(s))
		return m.Sum(nil)
	}
	message := bare + "," + serverFirst + "," + withoutProof
	clientKey := mac(salted, "Client Key")
	stored := sha256.Sum256(clientKey)
	want := mac(stored[:], message)
	for i := range want {
		want[i] ^= clientKey[i]
	}
	if honest && (proof != base64.StdEncoding.EncodeToString(want) || withoutProof != "c=biws,r="+nonce) {
		return false
	}
	signature := mac(mac(salted, "Server Key"), message)
	if !honest {
		signature[0]++
	}
	return ask("v="+base64.StdEncoding.EncodeToString(signature)) == ""
}

func TestBackend_login(t *testing.T) {
	const password = "pass wörd:=,"
	token := tokens("tok3n")
	long := strings.Repeat("t", 1000)
	tests := []struct {
		name  string
		offer string
		set   func(cfg *Config)
		used  string // mechanisms, in order
		want  string
	}{
		{"PLAIN", "PLAIN", nil, "PLAIN", "sent"},
		{"LOGIN", "LOGIN", nil, "LOGIN", "sent"},
		{"CRAM-MD5", "CRAM-MD5", nil, "CRAM-MD5", "sent"},
		{"SCRAM-SHA-256", "SCRAM-SHA-256", nil, "SCRAM-SHA-256", "sent"},
		{"strongest first", "LOGIN PLAIN CRAM-MD5 SCRAM-SHA-256 NTLM", nil, "SCRAM-SHA-256", "sent"},
		{"lower case", "plain", nil, "PLAIN", "sent"},
		{"as configured", "PLAIN CRAM-MD5 LOGIN", func(cfg *Config) { cfg.AuthMechanisms = []string{"LOGIN", "PLAIN"} }, "LOGIN", "sent"},
		{"XOAUTH2", "PLAIN XOAUTH2", token, "XOAUTH2", "sent"},
		{"OAUTHBEARER", "XOAUTH2 OAUTHBEARER", token, "OAUTHBEARER", "sent"},
		{"wrong token", "XOAUTH2", tokens("old"), "XOAUTH2", "unavailable"},
		{"no token", "XOAUTH2", func(cfg *Config) {
			cfg.TokenSource = TokenFunc(func(context.Context) (string, error) { return "", errors.New("no token") })
		}, "", "unavailable"},
		{"long token", "XOAUTH2", tokens(long), "XOAUTH2", "sent"},
		{"wrong password is tried twice", "PLAIN LOGIN CRAM-MD5", func(cfg *Config) { cfg.Password = "other" }, "CRAM-MD5,PLAIN", "unavailable"},
		{"next if one is not known after all", "CRAM-MD5 PLAIN", func(cfg *Config) { cfg.Hostname = "no-cram.example" }, "CRAM-MD5,PLAIN", "sent"},
		{"not offered", "", nil, "", "unavailable"},
		{"only unknown", "NTLM GSSAPI", nil, "", "unavailable"},
		{"no user, no login", "PLAIN", func(cfg *Config) { cfg.Username = "" }, "", "sent"},
		{"no password, no login", "PLAIN", func(cfg *Config) { cfg.Password = "" }, "", "sent"},
		{"not in clear text", "PLAIN", func(cfg *Config) { cfg.AllowInsecureAuth = false }, "", "unavailable"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t, "PIPELINING")
				if tt.offer != "" {
					p.offers = append(p.offers, "AUTH "+tt.offer)
				}
				cfg := testConfig(t, p)
				cfg.Username, cfg.Password, cfg.AllowInsecureAuth = "us,er=", password, true
				var trace strings.Builder
				cfg.Trace = func(line string) { trace.WriteString(line + "\n") }
				if tt.set != nil {
					tt.set(&cfg)
				}
				p.auth = knows("us,er=", password, "tok3n")
				if tt.name == "long token" {
					p.auth = knows("us,er=", password, long)
				}
				if cfg.Hostname == "no-cram.example" {
					p.script = once("AUTH", "504 5.5.4 not that one") // and then takes any
				}
				results := sendAll(t, newBackend(t, cfg), letters(1))
				if got := fates(results); got != tt.want {
					t.Errorf("got %s, want %s: %v", got, tt.want, results[0].Err)
				}
				var used []string
				for _, c := range p.said() {
					if mech, ok := strings.CutPrefix(c, "AUTH "); ok {
						mech, _, _ = strings.Cut(mech, " ")
						used = append(used, mech)
					}
					if strings.HasPrefix(c, "AUTH") && len(c) > 510 {
						t.Errorf("a command of %d octets", len(c))
					}
				}
				if got := strings.Join(used, ","); got != tt.used {
					t.Errorf("used %q, want %q", got, tt.used)
				}
				for _, secret := range []string{password, "tok3n", "secret", b64(password), b64("\x00us,er=\x00" + password), "us,er= "} {
					if strings.Contains(trace.String(), secret) || results[0].Err != nil && strings.Contains(results[0].Err.Error(), secret) {
						t.Errorf("%q is told to everybody: %v\n%s", secret, results[0].Err, trace.String())
					}
				}
			})
		})
	}
}

// TestBackend_loginFaults: whatever happens at the login, nothing is sent, and what the
// server repeats of our secret is not.
func TestBackend_loginFaults(t *testing.T) {
	const password = "hunter2hunter2"
	for _, tt := range []struct {
		reply string
		code  int
		conns int
	}{
		{"535 5.7.8 wrong: " + password + " " + b64("\x00me\x00"+password), 535, 1},
		{"454 4.7.0 later", 454, 1},
		{"334 not*base64", 500, 1}, // it is answered, and the peer takes that for a command
		{"334", 500, 1},
	} {
		t.Run(tt.reply[:3], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t, "AUTH PLAIN")
				p.script = on("AUTH", "", tt.reply)
				p.auth = func(string, string, func(string) string) bool { return false }
				cfg := testConfig(t, p)
				cfg.Username, cfg.Password, cfg.AllowInsecureAuth = "me", password, true
				cfg.Addrs = []string{"one.example", "two.example"}
				results := sendAll(t, newBackend(t, cfg), letters(2))
				if strings.HasPrefix(tt.reply, "334") {
					p.forgive() // the answer, which it has asked for
				}
				s := sendError(t, results[1].Err)
				if s.Class != mailer.Unavailable || s.Step != mailer.StepAuth || s.Code != tt.code || p.conns != tt.conns {
					t.Errorf("got %v with %d connections", s, p.conns)
				}
				if strings.Contains(s.Error(), password) || strings.Contains(s.Error(), b64(password)) || strings.Contains(s.Error(), b64("\x00me\x00"+password)) {
					t.Errorf("the secret is in %q", s.Error())
				}
			})
		})
	}
}

// TestBackend_loginNext: a mechanism that the server offers and that does not work is got round. What worked is
// remembered. The password is refused twice at most in a process, and then once for each attempt.
func TestBackend_loginNext(t *testing.T) {
	const password = "hunter2hunter2"
	works := func(mech string) map[string]string { return map[string]string{mech: "235 2.7.0 welcome"} }
	for _, tt := range []struct {
		name, offer string
		replies     map[string]string // by mechanism; 535 for others
		used        []string          // in three attempts to connect
		want        string
	}{
		{"CRAM-MD5 refuses all passwords", "CRAM-MD5 PLAIN LOGIN", works("PLAIN"), []string{"CRAM-MD5 PLAIN", "PLAIN", "PLAIN"}, "sent"},
		{"SCRAM refuses all passwords", "SCRAM-SHA-256 PLAIN", works("PLAIN"), []string{"SCRAM-SHA-256 PLAIN", "PLAIN", "PLAIN"}, "sent"},
		{"PLAIN is not known", "PLAIN LOGIN", map[string]string{"PLAIN": "502 5.5.1 no", "LOGIN": "235 ok"}, []string{"PLAIN LOGIN", "LOGIN", "LOGIN"}, "sent"},
		{"PLAIN is not in its form", "PLAIN LOGIN", map[string]string{"PLAIN": "504 5.5.4 no", "LOGIN": "235 ok"}, []string{"PLAIN LOGIN", "LOGIN", "LOGIN"}, "sent"},
		{"553", "PLAIN LOGIN", map[string]string{"PLAIN": "553 5.7.1 no", "LOGIN": "235 ok"}, []string{"PLAIN LOGIN", "LOGIN", "LOGIN"}, "sent"},
		{"534", "PLAIN LOGIN", map[string]string{"PLAIN": "534 5.7.9 no", "LOGIN": "235 ok"}, []string{"PLAIN LOGIN", "LOGIN", "LOGIN"}, "sent"},
		{"the third works", "CRAM-MD5 PLAIN LOGIN", works("LOGIN"), []string{"CRAM-MD5 PLAIN", "LOGIN", "LOGIN"}, "sent"},
		{"wrong password", "CRAM-MD5 PLAIN LOGIN", nil, []string{"CRAM-MD5 PLAIN", "LOGIN", "CRAM-MD5"}, "unavailable"},
		{"wrong password, none known but one", "CRAM-MD5 PLAIN", map[string]string{"CRAM-MD5": "502 no"}, []string{"CRAM-MD5 PLAIN", "CRAM-MD5 PLAIN", "CRAM-MD5 PLAIN"}, "unavailable"},
		{"not now", "PLAIN LOGIN", map[string]string{"PLAIN": "454 4.7.0 not now"}, []string{"PLAIN", "PLAIN", "PLAIN"}, "unavailable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t, "AUTH "+tt.offer)
				p.refuseAuth = func(mech string) string { return cmp.Or(tt.replies[mech], "535 5.7.8 no "+password) }
				cfg := testConfig(t, p)
				cfg.Username, cfg.Password, cfg.AllowInsecureAuth, cfg.Logins = "me", password, true, new(Logins)
				var results []mailer.Result
				for i, want := range tt.used {
					before := len(p.said())
					results = sendAll(t, newBackend(t, cfg), letters(1)) // another one each time
					var used []string
					for _, c := range p.said()[before:] {
						if mech, ok := strings.CutPrefix(c, "AUTH "); ok {
							mech, _, _ = strings.Cut(mech, " ")
							used = append(used, mech)
						}
					}
					if got := strings.Join(used, " "); got != want {
						t.Errorf("attempt %d used %q, want %q", i, got, want)
					}
				}
				if got := fates(results); got != tt.want {
					t.Errorf("in the end %s, want %s: %v", got, tt.want, results[0].Err)
				}
			})
		})
	}
}

// TestBackend_loginError: the error says what each mechanism was answered.
func TestBackend_loginError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t, "AUTH CRAM-MD5 PLAIN LOGIN")
		p.refuseAuth = func(mech string) string {
			return map[string]string{"CRAM-MD5": "504 5.5.4 not offered", "PLAIN": "535 5.7.8 wrong", "LOGIN": "502 5.5.1 unknown"}[mech]
		}
		cfg := testConfig(t, p)
		cfg.Username, cfg.Password, cfg.AllowInsecureAuth = "me", "hunter2hunter2", true
		s := sendError(t, sendAll(t, newBackend(t, cfg), letters(1))[0].Err)
		want := "535 5.7.8 no mechanism works: 504 5.5.4 not offered (CRAM-MD5 as me); 535 5.7.8 wrong (PLAIN as me); 502 5.5.1 unknown (LOGIN as me) (AUTH)"
		if s.Error() != want || s.Class != mailer.Unavailable {
			t.Errorf("got  %v\nwant %s", s, want)
		}
	})
}

// TestBackend_loginPrompts: what LOGIN's prompts say, and how, means nothing, and PLAIN goes on with a server that
// asks for what it has.
func TestBackend_loginPrompts(t *testing.T) {
	for name, prompts := range map[string][]string{
		"usual":          {"VXNlcm5hbWU6", "UGFzc3dvcmQ6"},
		"other words":    {b64("Who are you?"), b64("Say the word")},
		"not base64":     {"Username:", "Password:"},
		"without its =":  {"VXNlcg", "UGFzcw"},
		"nothing at all": {"", ""},
	} {
		for _, mech := range []string{"LOGIN", "PLAIN"} {
			t.Run(mech+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := newPeer(t, "AUTH "+mech)
					p.prompts = prompts
					want := []string{"me", "hunter2hunter2"}
					if mech == "PLAIN" {
						p.prompts, want = prompts[:1], []string{"\x00me\x00hunter2hunter2"}
					}
					p.answered = func(answers []string) bool { return slices.Equal(answers, want) }
					cfg := testConfig(t, p)
					cfg.Username, cfg.Password, cfg.AllowInsecureAuth = "me", "hunter2hunter2", true
					if results := sendAll(t, newBackend(t, cfg), letters(1)); fates(results) != "sent" {
						t.Errorf("got %v", results[0].Err)
					}
				})
			})
		}
	}
}

// TestBackend_scramImpostor: a server that does not know the password gets no mail, whether
// its proof is wrong or it gives none.
func TestBackend_scramImpostor(t *testing.T) {
	for name, serve := range map[string]func(mech, initial string, ask func(string) string) bool{
		"wrong proof": func(_, initial string, ask func(string) string) bool {
			scramServer(unb64(initial), "guess", false, ask)
			return true
		},
		"no proof": func(string, string, func(string) string) bool { return true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t, "AUTH SCRAM-SHA-256")
				p.auth = serve
				cfg := testConfig(t, p)
				cfg.Username, cfg.Password, cfg.AllowInsecureAuth = "me", "secret", true
				results := sendAll(t, newBackend(t, cfg), letters(1))
				if !errors.Is(results[0].Err, auth.ErrNoProof) {
					t.Errorf("got %v", results[0].Err)
				}
			})
		})
	}
}

// TestConfig_secrets: no way to print a Config shows its password.
func TestConfig_secrets(t *testing.T) {
	cfg := Config{Addrs: []string{"mail.example"}, Username: "me", Password: "hunter2", TLS: TLSImplicit}
	var all bytes.Buffer
	fmt.Fprintf(&all, "%v %+v %#v %s %v", cfg, cfg, cfg, cfg, []any{cfg, &cfg})
	if strings.Contains(all.String(), "hunter2") || !strings.Contains(all.String(), "smtps://me@mail.example") {
		t.Error(all.String())
	}
}

func TestNew_config(t *testing.T) {
	for name, cfg := range map[string]Config{
		"network":       {Network: "udp"},
		"TLS mode":      {TLS: 7},
		"local address": {LocalAddr: "localhost"},
		"host name":     {Hostname: "a\r\nMAIL FROM:<x>"},
		"host name 2":   {Hostname: "ü.example"},
		"literal":       {Hostname: "[1.2.3.4.5]"},
		"mechanism":     {AuthMechanisms: []string{"NTLM"}},
		"mechanism 2":   {AuthMechanisms: []string{"XOAUTH2"}, Username: "x", Password: "y"},
		"token of whom": {TokenSource: TokenFunc(func(context.Context) (string, error) { return "", nil })},
		"timeout":       {CommandTimeout: -1},
		"window":        {Window: -1},
		"messages":      {MaxMessages: -1},
		"pipelining":    {Pipelining: "on"},
		"chunking":      {Chunking: "yes"},
		"DSN return":    {DSN: DSN{Return: "SOME"}},
		"DSN notify":    {DSN: DSN{Notify: "SUCCESS, DELAY"}},
		"DSN notify 2":  {DSN: DSN{Notify: "NEVER,DELAY"}},
	} {
		if _, err := New(cfg); err == nil || !strings.HasPrefix(err.Error(), "smtp: config: ") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestConfig_addrs(t *testing.T) {
	for _, tt := range []struct {
		cfg  Config
		want []string
	}{
		{Config{}, []string{"localhost:25"}},
		{Config{TLS: TLSStart, Addrs: []string{"a", "b:26"}}, []string{"a:587", "b:26"}},
		{Config{TLS: TLSImplicit, Addrs: []string{"a", "::1", "[::1]", "[::1]:25"}}, []string{"a:465", "[::1]:465", "[::1]:465", "[::1]:25"}},
		{Config{Network: "unix", Addrs: []string{"/run/lmtp"}}, []string{"/run/lmtp"}},
	} {
		got, err := tt.cfg.complete()
		if err != nil || !slices.Equal(got.Addrs, tt.want) {
			t.Errorf("got %v, %v; want %v", got.Addrs, err, tt.want)
		}
	}
}
