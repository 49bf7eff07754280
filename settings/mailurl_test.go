package settings

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestMailURL(t *testing.T) {
	pw := NewSecret("pw")
	for _, tt := range []struct {
		name, url string
		shown     string // "" is the URL itself
		want      mailTarget
	}{
		{"host", "smtp://mx", "", mailTarget{backend: "smtp", server: mailServer{hosts: Hosts{"mx"}, port: 25}}},
		{"slash", "smtp://mx/", "smtp://mx", mailTarget{backend: "smtp", server: mailServer{hosts: Hosts{"mx"}, port: 25}}},
		{"port", "smtp://mx:2525", "", mailTarget{backend: "smtp", server: mailServer{hosts: Hosts{"mx"}, port: 2525}}},
		{"STARTTLS", "smtp+starttls://u:pw@mx", "smtp+starttls://u:[redacted]@mx",
			mailTarget{backend: "smtp", server: mailServer{hosts: Hosts{"mx"}, port: 587, user: "u", password: pw, useTLS: true}}},
		{"TLS", "smtps://u:pw@mx", "smtps://u:[redacted]@mx",
			mailTarget{backend: "smtp", server: mailServer{hosts: Hosts{"mx"}, port: 465, user: "u", password: pw, useSSL: true}}},
		{"TLS and a port", "SMTPS://mx:8465", "smtps://mx:8465", mailTarget{backend: "smtp", server: mailServer{hosts: Hosts{"mx"}, port: 8465, useSSL: true}}},
		{"user without password", "smtp://u@mx", "", mailTarget{backend: "smtp", server: mailServer{hosts: Hosts{"mx"}, port: 25, user: "u"}}},
		{"empty password", "smtp://u:@mx", "smtp://u:[redacted]@mx", mailTarget{backend: "smtp", server: mailServer{hosts: Hosts{"mx"}, port: 25, user: "u"}}},
		{"percent", "smtp://ann%40example.com:a%3A%2F%3F%23%40%25+%20b@mx", "smtp://ann%40example.com:[redacted]@mx",
			mailTarget{backend: "smtp", server: mailServer{hosts: Hosts{"mx"}, port: 25, user: "ann@example.com", password: NewSecret("a:/?#@%+ b")}}},
		{"@ and : in the password", "smtp://u:p@:w@mx", "smtp://u:[redacted]@mx",
			mailTarget{backend: "smtp", server: mailServer{hosts: Hosts{"mx"}, port: 25, user: "u", password: NewSecret("p@:w")}}},
		{"hosts", "smtps://mx1.example.com,mx2_b,192.0.2.1:465", "",
			mailTarget{backend: "smtp", server: mailServer{hosts: Hosts{"mx1.example.com", "mx2_b", "192.0.2.1"}, port: 465, useSSL: true}}},
		{"IPv6", "smtp://u:pw@[2001:db8::1],[::1]:26", "smtp://u:[redacted]@[2001:db8::1],[::1]:26",
			mailTarget{backend: "smtp", server: mailServer{hosts: Hosts{"2001:db8::1", "::1"}, port: 26, user: "u", password: pw}}},
		{"IPv6 without port", "smtp://[::1]", "", mailTarget{backend: "smtp", server: mailServer{hosts: Hosts{"::1"}, port: 25}}},
		{"outside ASCII", "smtp://bücher.example", "", mailTarget{backend: "smtp", server: mailServer{hosts: Hosts{"bücher.example"}, port: 25}}},
		{"console", "console:", "", mailTarget{backend: "console"}},
		{"slashes", "console://", "", mailTarget{backend: "console"}},
		{"dummy", "dummy:", "", mailTarget{backend: "dummy"}},
		{"locmem", "locmem:", "", mailTarget{backend: "locmem"}},
		{"files", "filebased:///var/mail%20box", "", mailTarget{backend: "filebased", path: "/var/mail box"}},
		{"files without slashes", "filebased:/var/mail", "", mailTarget{backend: "filebased", path: "/var/mail"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u, err := NewMailURL(" " + tt.url + " ")
			if err != nil {
				t.Fatal(err)
			}
			if tt.shown == "" {
				tt.shown = tt.url
			}
			tt.want.text, tt.want.shown = NewSecret(tt.url), tt.shown
			if !reflect.DeepEqual(*u.target, tt.want) {
				t.Errorf("got\n%+v\nwant\n%+v", *u.target, tt.want)
			}
			if u.Reveal() != tt.url || u.String() != tt.shown {
				t.Errorf("shown as %s, revealed as %s", u, u.Reveal())
			}
		})
	}
}

func TestMailURL_Bad(t *testing.T) {
	for _, tt := range []struct {
		name, url string
		want      error
	}{
		{"scheme", "imap://u:hunter2@mx", errMailScheme},
		{"none", "hunter2", errMailScheme},
		{"no scheme", "//u:hunter2@mx", errMailScheme},
		{"no slashes", "smtp:u:hunter2@mx", errMailScheme},
		{"no host", "smtp://", errMailHost},
		{"port alone", "smtp://:25", errMailHost},
		{"user alone", "smtp://u:hunter2@", errMailHost},
		{"hole in the list", "smtp://a,,b", errMailHost},
		{"port in the list", "smtp://a:25,b:25", errMailHost},
		{"no host name", "smtp://a_,-b", errMailHost},
		{"IPv6 without brackets", "smtp://2001:db8::x", errMailPort},
		{"half an IPv6 address", "smtp://2001:db8::1", errMailHost},
		{"open bracket", "smtp://[::1", errMailHost},
		{"IPv4 in brackets", "smtp://[192.0.2.1]", errMailHost},
		{"port 0", "smtp://mx:0", errMailPort},
		{"port 65536", "smtp://mx:65536", errMailPort},
		{"no port", "smtp://mx:", errMailPort},
		{"password and no host", "smtp://u:hunter2", errMailPort},
		{"no user", "smtp://@mx", errMailUser},
		{"password without user", "smtp://:hunter2@mx", errMailUser},
		{"path", "smtp://mx/hunter2", errMailURL},
		{"query", "smtp://mx?password=hunter2", errMailURL},
		{"slash in the password", "smtp://u:12/hunter2@mx", errMailURL},
		{"# in the password", "smtp://u:12#hunter2@mx", errMailURL},
		{"? in the password", "smtp://u:12?hunter2@mx", errMailURL},
		{"blank in the password", "smtp://u:a hunter2@mx", errMailURL},
		{"% in the password", "smtp://u:%zzhunter2@mx", errMailURL},
		{"% in the user", "smtp://%zz:hunter2@mx", errMailURL},
		{"line end in the password", "smtp://u:hunter2%0d%0aRCPT@mx", errMailChar},
		{"line end in the user", "smtp://u%0a:hunter2@mx", errMailChar},
		{"line end", "smtp://u:hunter2@mx\n.x", errMailChar},
		{"something after console", "console://hunter2", errMailRest},
		{"something after dummy", "dummy:hunter2", errMailRest},
		{"files on a host", "filebased://h/var/mail", errMailPath},
		{"no directory", "filebased:", errMailPath},
		{"root", "filebased:///", errMailPath},
		{"relative", "filebased:mail", errMailPath},
		{"fragment of a path", "filebased:///a#b", errMailPathURL},
		{"% in a path", "filebased:///a%zz", errMailPathURL},
		{"line end in a path", "filebased:///a%0a", errMailChar},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u, err := NewMailURL(tt.url)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if u.Reveal() != "" || u.String() != "" {
				t.Errorf("a bad URL is kept: %q", u.Reveal())
			}
			if strings.Contains(err.Error(), password) {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
}

func TestMailURL_NotShown(t *testing.T) {
	s, warnings := load(t, map[string]string{
		"EMAIL_URL": "smtp://u:" + password + "@mx.example.com:465", "EMAIL_MAILERS": "m,n",
		"EMAIL_M_URL": "smtps://v:x" + password + "@mx:25", "EMAIL_N_HOST": "n", "EMAIL_N_HOST_USER": "u", "EMAIL_N_HOST_PASSWORD": password,
	})
	type program struct{ settings Settings }
	m, err := s.Named("m")
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]any{
		"settings": s, "unexported": program{s}, "mailer": m, "URL": s.Delivery.URL, "list": []any{m.Delivery.URL},
		"description": Describe(s), "warnings": warnings, "empty": MailURL{},
	} {
		for how, text := range shown(t, v) {
			if strings.Contains(text, password) {
				t.Errorf("%s as %s shows the password: %s", name, how, text)
			}
		}
	}
	if m.SMTP.Password.Reveal() != "x"+password || s.SMTP.Password.Reveal() != password || len(warnings) != 4 {
		t.Errorf("the passwords are not read, or there are not four warnings: %q", warnings)
	}
}

// TestLoad_URL looks at what the URL becomes, for the program and for the worker.
func TestLoad_URL(t *testing.T) {
	for _, tt := range []struct {
		name            string
		vars            map[string]string
		program, worker string // the backends
	}{
		{"smtp", map[string]string{"EMAIL_URL": "smtp+starttls://u:pw@mx"}, "smtp", "smtp"},
		{"console", map[string]string{"EMAIL_URL": "console:"}, "console", "console"},
		{"queue", map[string]string{"EMAIL_URL": "smtp+starttls://u:pw@mx", "EMAIL_BACKEND": "queue"}, "queue", "smtp"},
		{"queue and console", map[string]string{"EMAIL_URL": "console:", "EMAIL_BACKEND": "queue"}, "queue", "console"},
		{"a program that prints", map[string]string{"EMAIL_URL": "smtp+starttls://u:pw@mx", "EMAIL_BACKEND": "console"}, "console", "smtp"},
		{"a worker that prints", map[string]string{"EMAIL_URL": "smtp+starttls://u:pw@mx", "EMAIL_QUEUE_BACKEND": "console"}, "smtp", "console"},
		{"both as they are", map[string]string{"EMAIL_URL": "smtp+starttls://u:pw@mx", "EMAIL_BACKEND": "smtp", "EMAIL_QUEUE_BACKEND": "smtp"}, "smtp", "smtp"},
		{"empty", map[string]string{"EMAIL_URL": " "}, "smtp", "smtp"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, warnings := load(t, tt.vars)
			if s.Delivery.Backend != tt.program || s.Worker.Backend != tt.worker || len(warnings) > 0 {
				t.Errorf("got %s and %s, warnings %q", s.Delivery.Backend, s.Worker.Backend, warnings)
			}
			want := Default().SMTP
			if strings.HasPrefix(tt.vars["EMAIL_URL"], "smtp") {
				want.Hosts, want.Port, want.User, want.Password, want.UseTLS = Hosts{"mx"}, 587, "u", NewSecret("pw"), true
			}
			if !reflect.DeepEqual(s.SMTP, want) {
				t.Errorf("got\n%+v\nwant\n%+v", s.SMTP, want)
			}
		})
	}
	s, _ := load(t, map[string]string{"EMAIL_URL": "filebased:///var/mail"})
	if s.Delivery.FilePath != "/var/mail" || s.Delivery.Backend != "filebased" {
		t.Errorf("got %+v", s.Delivery)
	}
}

// What the URL leaves out, such as a password from another file, may be added to it.
func TestLoad_URLAndMore(t *testing.T) {
	s, _ := load(t, map[string]string{"EMAIL_URL": "smtps://u@mx", "EMAIL_HOST_PASSWORD": "pw", "EMAIL_TIMEOUT": "5", "EMAIL_FILE_PATH": "/x"})
	if s.SMTP.User != "u" || s.SMTP.Password.Reveal() != "pw" || s.SMTP.Timeout.String() != "5s" || s.Delivery.FilePath != "/x" {
		t.Errorf("got %+v %+v", s.SMTP, s.Delivery)
	}
	s, _ = load(t, map[string]string{"EMAIL_URL": "smtps://mx", "EMAIL_HOST_USER": "u", "EMAIL_HOST_PASSWORD": "pw"})
	if s.SMTP.User != "u" || s.SMTP.Password.Reveal() != "pw" {
		t.Errorf("got %+v", s.SMTP)
	}
}

func TestLoad_URLProblems(t *testing.T) {
	const url, login, file = "smtp://mx", "smtps://u:pw@mx", "filebased:///var/mail"
	for _, tt := range []struct {
		name string
		vars map[string]string
		want []string
	}{
		{"not a URL", map[string]string{"EMAIL_URL": "mx:25", "EMAIL_HOST": "mx"}, []string{"EMAIL_URL: has to begin with"}},
		{"host", map[string]string{"EMAIL_URL": url, "EMAIL_HOST": "mx"}, []string{"EMAIL_URL: takes the place of EMAIL_HOST; leave out"}},
		{"port", map[string]string{"EMAIL_URL": url, "EMAIL_PORT": "25"}, []string{"EMAIL_URL: takes the place of EMAIL_PORT;"}},
		{"STARTTLS", map[string]string{"EMAIL_URL": url, "EMAIL_USE_TLS": "true"}, []string{"EMAIL_URL: takes the place of EMAIL_USE_TLS;"}},
		{"TLS", map[string]string{"EMAIL_URL": url, "EMAIL_USE_SSL": "false"}, []string{"EMAIL_URL: takes the place of EMAIL_USE_SSL;"}},
		{"user", map[string]string{"EMAIL_URL": login, "EMAIL_HOST_USER": "u"}, []string{"EMAIL_URL: takes the place of EMAIL_HOST_USER;"}},
		{"password", map[string]string{"EMAIL_URL": login, "EMAIL_HOST_PASSWORD": "pw"}, []string{"EMAIL_URL: takes the place of EMAIL_HOST_PASSWORD;"}},
		{"directory", map[string]string{"EMAIL_URL": file, "EMAIL_FILE_PATH": "/x"}, []string{"EMAIL_URL: takes the place of EMAIL_FILE_PATH;"}},
		{"several", map[string]string{"EMAIL_URL": url, "EMAIL_HOST": "mx", "EMAIL_PORT": "x"},
			[]string{`EMAIL_PORT: "x"`, "EMAIL_URL: takes the place of EMAIL_HOST, EMAIL_PORT;"}},
		{"a mailer's host", map[string]string{"EMAIL_MAILERS": "m", "EMAIL_M_URL": url, "EMAIL_M_HOST": "mx"},
			[]string{"EMAIL_M_URL: takes the place of EMAIL_M_HOST;"}},
		{"a mailer's backend", map[string]string{"EMAIL_MAILERS": "m", "EMAIL_M_URL": "console:", "EMAIL_M_BACKEND": "console"},
			[]string{"EMAIL_M_URL: takes the place of EMAIL_M_BACKEND;"}},
		{"a mailer's URL", map[string]string{"EMAIL_MAILERS": "m", "EMAIL_M_URL": "x"}, []string{"EMAIL_M_URL: has to begin with"}},
		{"another mailer's host", map[string]string{"EMAIL_URL": url, "EMAIL_MAILERS": "m", "EMAIL_M_HOST": "mx"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			compareLines(t, lines(t, tt.vars), tt.want)
		})
	}
}

func TestLoad_URLWarnings(t *testing.T) {
	for _, tt := range []struct {
		name string
		vars map[string]string
		want []string
	}{
		{"nobody uses it", map[string]string{"EMAIL_URL": "smtp://mx", "EMAIL_BACKEND": "console", "EMAIL_QUEUE_BACKEND": "dummy"},
			[]string{"EMAIL_URL: has no effect: EMAIL_BACKEND is console and EMAIL_QUEUE_BACKEND is dummy"}},
		{"password in clear text", map[string]string{"EMAIL_URL": "smtp://u:pw@mx"},
			[]string{"EMAIL_URL: the password is not sent to mx without TLS; begin the URL with smtp+starttls:// or smtps://, ... EMAIL_ALLOW_INSECURE_AUTH"}},
		{"user without password", map[string]string{"EMAIL_URL": "smtp://u@mx"}, []string{"EMAIL_URL: there is no login without EMAIL_HOST_PASSWORD"}},
		{"port of TLS", map[string]string{"EMAIL_URL": "smtp://mx:465"}, []string{"EMAIL_URL: 465 is the port for smtps://"}},
		{"port of STARTTLS", map[string]string{"EMAIL_URL": "smtps://mx:587"}, []string{"EMAIL_URL: 587 is rarely the port for smtps://; that is 465"}},
		{"authorities without TLS", map[string]string{"EMAIL_URL": "smtp://mx", "EMAIL_SSL_SERVER_NAME": "x"},
			[]string{"EMAIL_SSL_SERVER_NAME: has no effect without smtp+starttls:// or smtps://"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, warnings := load(t, tt.vars)
			compareLines(t, warnings, tt.want)
		})
	}
}

func TestDescribe_URL(t *testing.T) {
	s, _ := load(t, map[string]string{"EMAIL_URL": "smtps://u:pw@mx", "EMAIL_BACKEND": "queue", "EMAIL_MAILERS": "m", "EMAIL_M_URL": "dummy:"})
	s.SMTP.Port = 466
	all := Describe(s)
	for _, want := range []Setting{
		{Name: "EMAIL_URL", Value: "smtps://u:[redacted]@mx", Source: FromEnvironment},
		{Name: "EMAIL_HOST", Value: "mx", Source: FromURL},
		{Name: "EMAIL_PORT", Value: "466", Source: FromProgram},
		{Name: "EMAIL_USE_SSL", Value: "true", Source: FromURL},
		{Name: "EMAIL_HOST_PASSWORD", Value: "[redacted]", Source: FromURL},
		{Name: "EMAIL_BACKEND", Value: "queue", Source: FromEnvironment},
		{Name: "EMAIL_QUEUE_BACKEND", Value: "smtp", Source: FromURL},
		{Name: "EMAIL_SSL_CAFILE", Source: FromDefault},
		{Name: "EMAIL_M_URL", Value: "dummy:", Source: FromEnvironment},
		{Name: "EMAIL_M_BACKEND", Value: "dummy", Source: FromURL},
	} {
		if got := find(t, all, want.Name); got.Value != want.Value || got.Source != want.Source {
			t.Errorf("%s: got %q from %s, want %q from %s", want.Name, got.Value, got.Source, want.Value, want.Source)
		}
	}
}
