package settings

import (
	"encoding"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// secretFile returns the path of a new file that nobody else can read.
func secretFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	write(t, path, text)
	return path
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLoad_SecretFiles(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"no line end", password, password},
		{"line end", password + "\n", password},
		{"line end of Windows", password + "\r\n", password},
		{"blanks are part of it", " " + password + " \n", " " + password + " "},
		{"not ASCII", "pässword\n", "pässword"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := secretFile(t, tt.text)
			s, warnings := load(t, map[string]string{"EMAIL_HOST_USER": "ann", "EMAIL_HOST_PASSWORD_FILE": path, "EMAIL_HOST_PASSWORD": ""})
			if s.SMTP.Password.Reveal() != tt.want || len(warnings) > 0 {
				t.Errorf("got %q, %q, want %q", s.SMTP.Password.Reveal(), warnings, tt.want)
			}
			i := slices.IndexFunc(Describe(s), func(d Setting) bool { return d.Name == "EMAIL_HOST_PASSWORD" })
			if d := Describe(s)[i]; d.Source != FromFile || d.File != path || d.Value != redacted {
				t.Errorf("described as %+v", d)
			}
			if got := s.Variable("EMAIL_HOST_PASSWORD"); got != "EMAIL_HOST_PASSWORD_FILE" {
				t.Errorf("texts name %s", got)
			}
		})
	}
}

// A secret that is added to the settings can be in a file without more.
func TestLoad_EverySecretHasItsFile(t *testing.T) {
	s := Default()
	n := 0
	for _, f := range append(fields(&s), mailerFields(&s, "m")...) {
		text := fmt.Sprint(f.value.Type())
		if f.fileVariable() == "" {
			if strings.Contains(text, "Secret") || strings.Contains(text, "URL") {
				t.Errorf("%s cannot be in a file", f.name)
			}
			continue
		}
		n++
		if _, ok := reflect.New(f.value.Type()).Interface().(encoding.TextUnmarshaler); !ok {
			t.Errorf("%s cannot be read from a file", f.name)
		}
		text = password
		switch f.value.Interface().(type) {
		case URL:
			text = "redis://:" + password + "@h/0"
		case MailURL:
			text = "smtps://ann:" + password + "@h"
		case WebhookURLs:
			text = "https://ann:" + password + "@h/hook"
		case WebhookSecrets:
			text = webhookPassword
		}
		vars := map[string]string{"EMAIL_MAILERS": "m", f.fileVariable(): secretFile(t, text+"\n")}
		if f.key != "EMAIL_URL" {
			vars["EMAIL_M_HOST"] = "h"
		}
		if f.name == "EMAIL_URL" {
			vars["EMAIL_M_HOST"] = "h"
		}
		got, _ := load(t, vars)
		if f.name != f.key {
			var err error
			if got, err = got.Named("m"); err != nil {
				t.Fatal(err)
			}
		}
		all := fields(&got)
		g := all[slices.IndexFunc(all, func(g field) bool { return g.key == f.key })]
		if g.reveal() != text {
			t.Errorf("%s: %q was read, want %q", f.fileVariable(), g.reveal(), text)
		}
	}
	if n < 7 {
		t.Errorf("only %d secrets were tried", n)
	}
}

func TestLoad_SecretFileURL(t *testing.T) {
	s, _ := load(t, map[string]string{
		"EMAIL_URL_FILE":        secretFile(t, "smtps://ann:"+password+"@mx.example.com\n"),
		"REDIS_URL_FILE":        secretFile(t, "redis://:"+password+"@redis:6379/1\r\n"),
		"EMAIL_MAILERS":         "bulk",
		"EMAIL_BULK_URL_FILE":   secretFile(t, "smtp+starttls://bob:x@bulk.example.com"),
		"EMAIL_HTTP_TOKEN_FILE": secretFile(t, "t0ken\n"),
	})
	if s.SMTP.Hosts.String() != "mx.example.com" || s.SMTP.User != "ann" || s.SMTP.Password.Reveal() != password || !s.SMTP.UseSSL {
		t.Errorf("server: %+v", s.SMTP)
	}
	if got := s.Queue.RedisURL.Reveal(); got != "redis://:"+password+"@redis:6379/1" {
		t.Errorf("Redis: %s", got)
	}
	if s.HTTP.Token.Reveal() != "t0ken" {
		t.Error("no token")
	}
	bulk, err := s.Named("bulk")
	if err != nil || bulk.SMTP.Hosts.String() != "bulk.example.com" || bulk.SMTP.User != "bob" || !bulk.SMTP.UseTLS {
		t.Errorf("bulk: %+v, %v", bulk.SMTP, err)
	}
	if got := bulk.Variable("EMAIL_HOST_PASSWORD"); got != "EMAIL_BULK_URL_FILE" {
		t.Errorf("texts name %s", got)
	}
	for how, text := range shown(t, []any{s, bulk, Describe(s)}) {
		if strings.Contains(text, password) {
			t.Errorf("%s shows the password: %s", how, text)
		}
	}
}

func TestLoad_SecretFileProblems(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	const v = "EMAIL_HOST_PASSWORD_FILE"
	for _, tt := range []struct {
		name string
		vars map[string]string
		want string
	}{
		{"missing", map[string]string{v: filepath.Join(dir, "none")}, v + ": cannot be read: stat " + filepath.Join(dir, "none") + ": no such file"},
		{"directory", map[string]string{v: dir}, v + ": " + dir + " is a directory"},
		{"pipe", map[string]string{v: pipe}, v + ": " + pipe + " is not a regular file"},
		{"device", map[string]string{v: "/dev/null"}, v + ": /dev/null is not a regular file"},
		{"empty", map[string]string{v: secretFile(t, "")}, " is empty"},
		{"line end alone", map[string]string{v: secretFile(t, "\r\n")}, " is empty"},
		{"too big", map[string]string{v: secretFile(t, strings.Repeat("x", maxSecret+1))}, " has more than 65536 bytes"},
		{"two lines", map[string]string{v: secretFile(t, password+"\nx\n")}, "has a line end in the middle"},
		{"empty line behind", map[string]string{v: secretFile(t, password+"\n\n")}, "has a line end at its end"},
		{"control character", map[string]string{v: secretFile(t, password+"\x01")}, "holds a control character"},
		{"not UTF-8", map[string]string{v: secretFile(t, password+"\xff")}, "holds a control character, or is not UTF-8"},
		{"byte order mark", map[string]string{v: secretFile(t, "\ufeff"+password)}, "begins with a byte order mark"},
		{"line end in the name", map[string]string{v: secretFile(t, password) + "\n"}, v + ": has a line end at its end"},
		{"both", map[string]string{v: secretFile(t, password), "EMAIL_HOST_PASSWORD": password}, v + ": EMAIL_HOST_PASSWORD is set too"},
		{"both of a mailer", map[string]string{
			"EMAIL_MAILERS": "m", "EMAIL_M_HOST": "h", "EMAIL_M_HOST_PASSWORD_FILE": secretFile(t, password), "EMAIL_M_HOST_PASSWORD": password,
		}, "EMAIL_M_HOST_PASSWORD_FILE: EMAIL_M_HOST_PASSWORD is set too"},
		{"URL", map[string]string{"EMAIL_URL_FILE": secretFile(t, "gopher://ann:"+password+"@h")}, ": has to begin with console:"},
		{"Redis", map[string]string{"REDIS_URL_FILE": secretFile(t, "http://:"+password+"@h")}, ": has to begin with redis://"},
		{"URL and password", map[string]string{
			"EMAIL_URL_FILE": secretFile(t, "smtps://ann:x@h"), v: secretFile(t, password),
		}, "EMAIL_URL_FILE: takes the place of " + v + ";"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := lines(t, tt.vars)
			if len(got) != 1 || !strings.Contains(got[0], tt.want) || !strings.Contains(got[0], "_FILE: ") {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if strings.Contains(strings.Join(got, ""), password) {
				t.Errorf("the secret is shown: %q", got)
			}
		})
	}
}

// A file that only others have is no problem for those who do not use it.
func TestLoad_SecretFileOfOthers(t *testing.T) {
	setenv(t, map[string]string{
		"EMAIL_HOST_PASSWORD_FILE": "/nowhere/1", "EMAIL_MAILERS": "m,n", "EMAIL_M_HOST": "h", "EMAIL_N_HOST": "h", "EMAIL_M_HOST_PASSWORD_FILE": "/nowhere/2",
		"EMAIL_HTTP_PASSWORD_FILE": "/nowhere/3",
	})
	s, warnings, err := Loader{Producer: true}.Load()
	if err != nil || len(warnings) != 3 {
		t.Fatalf("%q, %v", warnings, err)
	}
	for name, want := range map[string]string{"": "/nowhere/1", "m": "/nowhere/2", "n": ""} {
		named, err := s.Named(name)
		if err != nil {
			t.Fatal(err)
		}
		if err = named.CheckSecrets(); (err == nil) != (want == "") || want != "" && !strings.Contains(err.Error(), want) {
			t.Errorf("mailer %q: %v, want %s", name, err, want)
		}
	}
	if err := s.CheckWorker(); err == nil || !strings.HasPrefix(err.Error(), "EMAIL_HTTP_PASSWORD_FILE: ") {
		t.Errorf("pages: %v", err)
	}
	if got := lines(t, map[string]string{"EMAIL_BACKEND": "queue", "REDIS_URL_FILE": "/nowhere"}); len(got) != 1 {
		t.Errorf("everybody needs Redis: %q", got)
	}
}

func TestLoad_SecretFileWarnings(t *testing.T) {
	path := secretFile(t, password)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	parent := filepath.Dir(filepath.Dir(path))
	for dir := filepath.Dir(path); dir != filepath.Dir(parent); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	vars := map[string]string{"EMAIL_HOST_USER": "ann", "EMAIL_HOST_PASSWORD_FILE": path}
	if !isExposed(os.TempDir()) {
		t.Skip("nobody else gets as far as the directory of the test")
	}
	if _, warnings := load(t, vars); len(warnings) != 1 || !strings.HasPrefix(warnings[0], "EMAIL_HOST_PASSWORD_FILE: every user of this machine can read "+path) {
		t.Errorf("got %q", warnings)
	}
	if err := os.Chmod(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if _, warnings := load(t, vars); len(warnings) > 0 {
		t.Errorf("its directory is closed, and yet: %q", warnings)
	}
	vars["EMAIL_HOST_PASWORD_FILE"] = path
	if _, warnings := load(t, vars); len(warnings) != 1 || !strings.HasSuffix(warnings[0], "did you mean EMAIL_HOST_PASSWORD_FILE?") {
		t.Errorf("mistyped: %q", warnings)
	}
}

// What has several lines may have them in a file and in the environment.
func TestField_hasLines(t *testing.T) {
	const key = "-----BEGIN KEY-----\nAA==\r\n-----END KEY-----\n"
	var s struct {
		Key Secret `envconfig:"EMAIL_KEY" lines:"many"`
	}
	v := reflect.ValueOf(&s).Elem()
	f := field{name: "EMAIL_KEY", key: "EMAIL_KEY", def: v.Type().Field(0), value: v.Field(0)}
	if err := (Loader{}).fromText(f, key); err != nil || s.Key.Reveal() != key {
		t.Errorf("got %q, %v", s.Key.Reveal(), err)
	}
	if err := (Loader{}).fromText(f, "a\x00b"); err == nil {
		t.Error("a NUL is taken")
	}
	t.Setenv("EMAIL_KEY", key)
	if err := f.lineEnd(true); err != nil {
		t.Error(err)
	}
	var p Problems
	if f.check(&p); len(p) > 0 {
		t.Error(p)
	}
}

func TestSettings_Reload(t *testing.T) {
	files := map[string]string{}
	for _, name := range []string{"EMAIL_HOST_PASSWORD", "EMAIL_HTTP_TOKEN"} {
		files[name] = secretFile(t, "old\n")
	}
	files["EMAIL_M_URL"] = secretFile(t, "smtps://ann:old@h1")
	files["REDIS_URL"] = secretFile(t, "redis://:old@h")
	vars := map[string]string{"EMAIL_HOST_USER": "u", "EMAIL_MAILERS": "m,n", "EMAIL_N_HOST": "h", "EMAIL_N_HOST_PASSWORD": "own"}
	for name, path := range files {
		vars[name+"_FILE"] = path
	}
	before, _ := load(t, vars)
	same, r := before.Reload()
	if len(r.Changed)+len(r.Kept)+len(r.Restart) > 0 || same.SMTP.Password.Reveal() != "old" {
		t.Errorf("nothing has changed, and %+v", r)
	}

	write(t, files["EMAIL_HOST_PASSWORD"], "new\n")
	write(t, files["EMAIL_HTTP_TOKEN"], "new\n")
	write(t, files["EMAIL_M_URL"], "smtps://bob:new@h2,h3:444\n")
	write(t, files["REDIS_URL"], "redis://:new@h\n")
	s, r := before.Reload()
	slices.Sort(r.Changed)
	if want := []string{"EMAIL_HOST_PASSWORD_FILE", "EMAIL_HTTP_TOKEN_FILE", "EMAIL_M_URL_FILE", "REDIS_URL_FILE"}; !slices.Equal(r.Changed, want) || len(r.Kept) > 0 ||
		!slices.Equal(r.Restart, []string{"REDIS_URL_FILE"}) {
		t.Errorf("got %+v, want %q", r, want)
	}
	m, err := s.Named("m")
	if err != nil {
		t.Fatal(err)
	}
	if s.SMTP.Password.Reveal() != "new" || s.HTTP.Token.Reveal() != "new" || m.SMTP.User != "bob" || m.SMTP.Password.Reveal() != "new" ||
		m.SMTP.Hosts.String() != "h2,h3" || m.SMTP.Port != 444 || s.Queue.RedisURL.Reveal() != "redis://:new@h" {
		t.Errorf("the default mailer: %+v, m: %+v", s.SMTP, m.SMTP)
	}
	old, _ := before.Named("m")
	if before.SMTP.Password.Reveal() != "old" || old.SMTP.User != "ann" || old.SMTP.Password.Reveal() != "old" {
		t.Error("the settings before have changed")
	}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}

	write(t, files["EMAIL_M_URL"], "smtps://h2\n")
	if s, _ = s.Reload(); s.named[0].own.SMTP.User != "" || s.named[0].own.SMTP.Password.Reveal() != "" {
		t.Errorf("a login that the URL does not have any more: %+v", s.named[0].own.SMTP)
	}
}

func TestSettings_ReloadKeeps(t *testing.T) {
	password, url := secretFile(t, "old"), secretFile(t, "smtps://ann:old@h")
	vars := map[string]string{
		"EMAIL_MAILERS": "m", "EMAIL_M_URL_FILE": url, "EMAIL_M_AUTH_MECHANISMS": "PLAIN", "EMAIL_HOST_PASSWORD_FILE": password, "EMAIL_HOST_USER": "u",
	}
	s, _ := load(t, vars)
	for _, tt := range []struct{ name, path, text, want string }{
		{"empty", password, "", "EMAIL_HOST_PASSWORD_FILE: " + password + " is empty. What was read before is kept"},
		{"two lines", password, "a\nb", "EMAIL_HOST_PASSWORD_FILE: has a line end in the middle"},
		{"no URL", url, "smtp", "EMAIL_M_URL_FILE: has to begin"},
		{"another backend", url, "console:", "EMAIL_M_URL_FILE: is for another backend"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			write(t, tt.path, tt.text)
			n, r := s.Reload()
			if len(r.Kept) != 1 || !strings.HasPrefix(r.Kept.Error(), tt.want) || len(r.Changed) > 0 {
				t.Errorf("got %+v, want %s", r, tt.want)
			}
			m, err := n.Named("m")
			if err != nil || n.SMTP.Password.Reveal() != "old" || m.SMTP.Password.Reveal() != "old" || m.Delivery.Backend != "smtp" {
				t.Errorf("the values before are not kept: %+v, %+v, %v", n.SMTP, m.SMTP, err)
			}
			write(t, password, "old")
			write(t, url, "smtps://ann:old@h")
		})
	}
	if err := os.Remove(password); err != nil {
		t.Fatal(err)
	}
	n, r := s.Reload()
	if len(r.Kept) != 1 || n.SMTP.Password.Reveal() != "old" {
		t.Errorf("a file that is gone: %+v", r)
	}

	// What the program has set itself stays so.
	s.SMTP.Password = NewSecret("program")
	write(t, password, "new")
	if n, r = s.Reload(); n.SMTP.Password.Reveal() != "program" || len(r.Changed) > 0 {
		t.Errorf("got %q, %+v", n.SMTP.Password.Reveal(), r)
	}
}

// A program that leaves its mail to workers does so after its mailers' URL has changed.
func TestSettings_ReloadProducer(t *testing.T) {
	url := secretFile(t, "smtps://ann:old@h")
	setenv(t, map[string]string{"EMAIL_URL_FILE": url})
	s, _, err := Loader{Producer: true}.Load()
	if err != nil {
		t.Fatal(err)
	}
	write(t, url, "smtps://ann:new@h")
	if s, _ = s.Reload(); s.Delivery.Backend != "queue" || s.Worker.Backend != "smtp" || s.SMTP.Password.Reveal() != "new" {
		t.Errorf("got %s, %s, %q", s.Delivery.Backend, s.Worker.Backend, s.SMTP.Password.Reveal())
	}
}

// Kubernetes puts secrets behind symbolic links, and replaces the directory that they lead to.
func TestSettings_ReloadKubernetes(t *testing.T) {
	dir := t.TempDir()
	link := func(version, text string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, version, "password"), text)
		if err := os.Symlink(version, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	link("..1", "old")
	if err := os.Symlink("..data/password", filepath.Join(dir, "password")); err != nil {
		t.Fatal(err)
	}
	s, _ := load(t, map[string]string{"EMAIL_HOST_USER": "u", "EMAIL_HOST_PASSWORD_FILE": filepath.Join(dir, "password")})
	link("..2", "new")
	if s, _ = s.Reload(); s.SMTP.Password.Reveal() != "new" {
		t.Errorf("got %q", s.SMTP.Password.Reveal())
	}
}
