package pages

import (
	"errors"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/mailpouch/mailpouch/backends/smtp/oauth"
	"github.com/mailpouch/mailpouch/internal/redact"
	browsertest "github.com/mailpouch/mailpouch/internal/testserver/browser"
)

func TestState_Tokens(t *testing.T) {
	t.Parallel()
	s, pass := clocked("marketing")
	token := func() mailerStatus { return s.snapshot(redact.View{}).Mailers[1] }
	if m := token(); m.TokenAt != nil || m.TokenEnd != nil || m.TokenWhy != "" {
		t.Errorf("before any: %+v", m)
	}
	hear, end := s.Tokens("marketing"), s.now().Add(time.Hour)
	hear(oauth.Event{Expires: end})
	if m := token(); !m.TokenAt.Equal(s.now()) || !m.TokenEnd.Equal(end) || m.TokenWhy != "" {
		t.Errorf("with one: %+v", m)
	}
	pass(time.Minute)
	hear(oauth.Event{Err: &oauth.Error{Provider: oauth.Google, Refused: true, Code: "invalid_grant"}})
	if m := token(); !m.TokenAt.Equal(s.now()) || !m.TokenEnd.Equal(end) || m.TokenWhy != "OAuth 2: google refuses a token: invalid_grant" {
		t.Errorf("with the old one: %+v", m)
	}
	hear(oauth.Event{Expires: end.Add(time.Hour), NotKept: errors.New("read-only")})
	if m := token(); !m.TokenEnd.Equal(end.Add(time.Hour)) || m.TokenWhy != "another refresh token cannot be written to its file: read-only" {
		t.Errorf("with a new one: %+v", m)
	}
	if m := s.snapshot(redact.View{}).Mailers[0]; m.TokenAt != nil {
		t.Errorf("another mailer has it: %+v", m)
	}
}

func TestBrowser_tokens(t *testing.T) {
	s := serve(t, Config{})
	b := browsertest.Start(t)
	b.Do(chromedp.Navigate(s.URL()))
	says(b, "Nothing has failed")
	hear := s.cfg.State.Tokens("")
	hear(oauth.Event{Expires: time.Now().Add(3*time.Hour + time.Minute)})
	says(b, "OAuth 2 token: good for 3 h")
	hear(oauth.Event{Err: &oauth.Error{Provider: oauth.Google, Refused: true, Code: "invalid_grant", Text: "<b>no</b>"}})
	says(b, "OAuth 2: google refuses a token: invalid_grant: <b>no</b>")
	says(b, "OAuth 2 token: good for 3 h")
}
