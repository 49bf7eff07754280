package backends

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

func TestSMTPConfig(t *testing.T) {
	s := settings.Settings{
		Message: settings.Message{DefaultFrom: "shop@example.com", Charset: "iso-8859-1", LocalTime: true, Hostname: "bücher.example"},
		SMTP: settings.SMTP{
			Hosts: settings.Hosts{"mx1.bücher.example", "2001:db8::1"}, Port: 587, User: "u", Password: settings.NewSecret("pw"),
			UseTLS: true, CertFile: "cert", KeyFile: "key", CAFile: "ca", ServerName: "mx.bücher.example", AllowInsecureAuth: true,
			Timeout: settings.Seconds(time.Second), DataTimeout: 2 * time.Second, Pipelining: "off", Chunking: "auto",
			IdleTimeout: 3 * time.Second, MaxMessages: 4, MaxBytes: 5, MaxAge: 6 * time.Second,
		},
	}
	want := smtp.Config{
		Addrs:    []string{"mx1.xn--bcher-kva.example:587", "[2001:db8::1]:587"},
		Hostname: "xn--bcher-kva.example", Username: "u", Password: "pw", AllowInsecureAuth: true,
		TLS: smtp.TLSStart, ServerName: "mx.xn--bcher-kva.example", CAFile: "ca", CertFile: "cert", KeyFile: "key",
		ConnectTimeout: time.Second, CommandTimeout: time.Second, DataTimeout: 2 * time.Second, IdleTimeout: 3 * time.Second,
		MaxMessages: 4, MaxBytes: 5, MaxAge: 6 * time.Second, Pipelining: smtp.Off, Chunking: smtp.Auto,
		Defaults: mailer.Defaults{FromEmail: "shop@example.com", Charset: "iso-8859-1", Hostname: "xn--bcher-kva.example", LocalTime: true},
	}
	if got := smtpConfig(s); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %s\nwant %s", show(got), show(want))
	}
}

// show lets a Config that hides its password be read in a failure.
func show(c smtp.Config) string {
	type open smtp.Config
	return fmt.Sprintf("%+v", open(c))
}

// TestSMTPConfig_Complete finds a field of settings.SMTP that ends nowhere: each one,
// changed by itself, has to change the configuration.
func TestSMTPConfig_Complete(t *testing.T) {
	base := smtpConfig(settings.Default())
	fields := reflect.TypeFor[settings.SMTP]()
	for i := range fields.NumField() {
		s := settings.Default()
		switch f := reflect.ValueOf(&s.SMTP).Elem().Field(i).Addr().Interface().(type) {
		case *string:
			*f = "x"
		case *int:
			*f = 99
		case *bool:
			*f = true
		case *time.Duration:
			*f = time.Hour
		case *settings.Seconds:
			*f = settings.Seconds(time.Hour)
		case *settings.Secret:
			*f = settings.NewSecret("x")
		case *settings.Hosts:
			*f = settings.Hosts{"x"}
		case *settings.Replies:
			*f = settings.Replies{"550 5.4.5"}
		case *settings.Mechanisms:
			*f = settings.Mechanisms{"LOGIN"}
		default:
			t.Fatalf("this test cannot change a %T", f)
		}
		if reflect.DeepEqual(smtpConfig(s), base) {
			t.Errorf("SMTP.%s has no effect", fields.Field(i).Name)
		}
	}
}

// What settings take as a mechanism is what the backend knows, and no more.
func TestSMTPConfig_Mechanisms(t *testing.T) {
	var m settings.Mechanisms
	if err := m.UnmarshalText([]byte("scram-sha-256 CRAM-MD5, plain,LOGIN")); err != nil || len(m) != 4 {
		t.Fatalf("%v, %v", m, err)
	}
	s := settings.Default()
	s.SMTP.User, s.SMTP.Password, s.SMTP.AuthMechanisms = "u", settings.NewSecret("p"), m
	if _, err := smtp.New(smtpConfig(s)); err != nil {
		t.Error(err)
	}
	if err := m.UnmarshalText([]byte("xoauth2 oauthbearer")); err != nil || len(m) != 2 {
		t.Fatalf("%v, %v", m, err)
	}
	s.SMTP.Password, s.SMTP.AuthMechanisms, s.OAuth = settings.Secret{}, m, customOAuth()
	if _, err := SMTP(s, new(Logins), nil); err != nil {
		t.Error(err)
	}
	for _, unknown := range []string{"NTLM", "XOAUTH", "PLAIN;LOGIN"} {
		if err := m.UnmarshalText([]byte(unknown)); err == nil {
			t.Errorf("%s is accepted", unknown)
		}
	}
}

func customOAuth() settings.OAuth {
	return settings.OAuth{Provider: "custom", ClientID: "id", ClientSecret: settings.NewSecret("s"), TokenURL: "https://login.example.com/token"}
}

// TestOAuthConfig_Complete finds a field of settings.OAuth that ends nowhere.
func TestOAuthConfig_Complete(t *testing.T) {
	base := oauthConfig(settings.Default())
	fields := reflect.TypeFor[settings.OAuth]()
	for i := range fields.NumField() {
		s := settings.Default()
		switch f := reflect.ValueOf(&s.OAuth).Elem().Field(i).Addr().Interface().(type) {
		case *string:
			*f = "x"
		case *settings.Secret:
			*f = settings.NewSecret("x")
		default:
			t.Fatalf("this test cannot change a %T", f)
		}
		if oauthConfig(s) == base {
			t.Errorf("OAuth.%s has no effect", fields.Field(i).Name)
		}
	}
}

// The backends of a mailer share a source of tokens; those of another mailer have another one.
func TestSMTP_tokens(t *testing.T) {
	logins := new(Logins)
	source := func(using string) smtp.TokenSource {
		t.Helper()
		s := settings.Default()
		s.Using, s.SMTP.User, s.OAuth = using, "ann@example.com", customOAuth()
		b, err := SMTP(s, logins, nil)
		if err != nil {
			t.Fatal(err)
		}
		return b.(*smtp.Backend).TokenSource()
	}
	if a, b, c := source(""), source(""), source("other"); a != b || a == c {
		t.Errorf("%p, %p, and of another mailer %p", a, b, c)
	}
	s := settings.Default()
	s.OAuth = settings.OAuth{Provider: "microsoft"}
	var problems settings.Problems
	if _, err := SMTP(s, logins, nil); !errors.As(err, &problems) || len(problems) < 4 {
		t.Errorf("got %v", err)
	}
}

func TestSMTPConfig_TLS(t *testing.T) {
	for _, tt := range []struct {
		name     string
		tls, ssl bool
		want     smtp.TLSMode
	}{
		{"none", false, false, smtp.TLSNone},
		{"STARTTLS", true, false, smtp.TLSStart},
		{"implicit", false, true, smtp.TLSImplicit},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := settings.Default()
			s.SMTP.UseTLS, s.SMTP.UseSSL = tt.tls, tt.ssl
			if got := smtpConfig(s).TLS; got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
