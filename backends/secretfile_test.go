package backends_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

// A program that delivers by itself logs in with what the file says when it sends, or has said if it is wrong by now.
func TestRegistry_Mailer_secretFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "password")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one\n")
	s := load(t, map[string]string{"EMAIL_MAILERS": "bulk", "EMAIL_BULK_HOST": "h", "EMAIL_BULK_HOST_USER": "ann", "EMAIL_BULK_HOST_PASSWORD_FILE": path})
	reg, all := made("smtp")
	m, err := reg.Mailer(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ text, want string }{{"one\n", "one"}, {"two\r\n", "two"}, {"", "two"}, {"three", "three"}} {
		write(tt.text)
		if err := using(t, m, mailer.Connection{Using: "bulk"}); err != nil {
			t.Fatal(err)
		}
		if got := (*all)[len(*all)-1].SMTP.Password.Reveal(); got != tt.want {
			t.Errorf("the file says %q, and the password is %q, want %q", tt.text, got, tt.want)
		}
	}
}

// Who leaves its mail to workers may lack the file; who delivers may not.
func TestRegistry_New_secretFileMissing(t *testing.T) {
	s := load(t, map[string]string{"EMAIL_BACKEND": "queue", "EMAIL_HOST_PASSWORD_FILE": "/nowhere/password"})
	reg, all := made("smtp", "queue")
	if _, err := reg.New("queue", s); err != nil {
		t.Errorf("a queue: %v", err)
	}
	_, err := reg.New("smtp", s)
	var problems settings.Problems
	if !errors.As(err, &problems) || problems[0].Name != "EMAIL_HOST_PASSWORD_FILE" || len(*all) != 1 {
		t.Errorf("got %v", err)
	}
}
