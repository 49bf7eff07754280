package oauth

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// Error is why there is no token. Its text has no secret in it.
type Error struct {
	Provider Provider

	// Refused: the provider says no, or there is nothing to show to it, until a person changes something. Otherwise the endpoint
	// is away, or does not answer as it should.
	Refused bool

	Code string // of RFC 6749, 5.2, such as "invalid_grant"; "" if there is none
	Text string // what the provider says beside it
	Hint string // what to do, where that is known

	Err error // where the provider has not answered

	after time.Duration // for which it does not want to be asked
}

func (e *Error) Error() string {
	text := "OAuth 2: "
	switch {
	case e.Refused && e.Err != nil:
		text += "no token of " + string(e.Provider)
	case e.Refused:
		text += string(e.Provider) + " refuses a token"
	default:
		text += "the token endpoint of " + string(e.Provider) + " does not answer as it should"
	}
	for _, part := range []string{e.Code, e.Text} {
		if part != "" {
			text += ": " + part
		}
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// maxAfter is how long a provider may want not to be asked.
const maxAfter = 15 * time.Minute

// maxText is how much of what a provider says is kept.
const maxText = 300

// asError makes an Error of what a request has led to. secrets are taken out of what the provider says.
func asError(p Provider, err error, secrets ...string) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	var answer *oauth2.RetrieveError
	if !errors.As(err, &answer) || answer.Response == nil {
		var of *url.Error // x/oauth2 keeps its text alone, unless it has seen no answer at all
		text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "oauth2: "), "cannot fetch token: ")
		if errors.As(err, &of) {
			text = of.Err.Error()
		}
		return &Error{Provider: p, Err: errors.New(clean(text, secrets))}
	}
	e := &Error{Provider: p, Code: answer.ErrorCode, Text: answer.ErrorDescription}
	if e.Code == "" {
		var body struct {
			Code string `json:"error"`
			Text string `json:"error_description"`
		}
		_ = json.Unmarshal(answer.Body, &body) // a page of a proxy is none
		e.Code, e.Text = body.Code, body.Text
	}
	status := answer.Response.StatusCode
	e.Code, e.Text = clean(e.Code, secrets), clean(e.Text, secrets)
	if e.Code == "" {
		e.Text = "HTTP status " + strconv.Itoa(status) + " " + http.StatusText(status)
	}
	e.Refused = status < 500 && status != http.StatusTooManyRequests && status != http.StatusRequestTimeout && e.Code != "" &&
		e.Code != "temporarily_unavailable" && e.Code != "server_error" && e.Code != "slow_down"
	if seconds, err := strconv.Atoi(answer.Response.Header.Get("Retry-After")); err == nil && seconds > 0 {
		e.after = min(time.Duration(seconds)*time.Second, maxAfter)
	}
	e.Hint = hint(p, e.Code, e.Text)
	return e
}

// clean makes one line of what a provider says, without secrets, and without the numbers that differ each time.
func clean(text string, secrets []string) string {
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(strings.ReplaceAll(text, secret, "(hidden)"), url.QueryEscape(secret), "(hidden)")
		}
	}
	text, _, _ = strings.Cut(text, "Trace ID:") // of Microsoft
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return text
}

// What to do about refusals.
const (
	hintLogin  = "somebody has to agree again: worker oauth login"
	hintTenant = "see EMAIL_OAUTH_TENANT: the directory's ID or one of its domains"
	hintClient = "see EMAIL_OAUTH_CLIENT_ID, and EMAIL_OAUTH_TENANT: the directory that the application is registered in"
	hintSecret = "see EMAIL_OAUTH_CLIENT_SECRET" //nolint:gosec // no secret
	hintScope  = "see EMAIL_OAUTH_SCOPE"
	hintAdmin  = "an administrator has to grant the application its permissions"
	hintPolicy = "a conditional access policy blocks it"
	hintFactor = "the account wants a second factor: " + hintLogin
)

// microsoftHints are by Microsoft's own codes (learn.microsoft.com: Microsoft Entra authentication and authorization error
// codes).
func microsoftHints() map[string]string {
	return map[string]string{
		"AADSTS7000215": "EMAIL_OAUTH_CLIENT_SECRET has to be the secret's value, not its ID",
		"AADSTS7000222": "the client secret has expired: make a new one for the application",
		"AADSTS7000216": hintSecret + ": the application wants one",
		"AADSTS7000218": hintSecret + ": the application wants one, unless it allows public client flows",
		"AADSTS700025":  hintSecret + ": the application is a public one and has none",
		"AADSTS700016":  hintClient,
		"AADSTS7000112": "the application is disabled",
		"AADSTS90002":   hintTenant,
		"AADSTS900023":  hintTenant,
		"AADSTS50059":   hintTenant,
		"AADSTS50194":   hintTenant + ", not common",
		"AADSTS700082":  "the refresh token was not used for too long: " + hintLogin,
		"AADSTS70008":   hintLogin,
		"AADSTS70043":   hintLogin,
		"AADSTS9002313": "what EMAIL_OAUTH_REFRESH_TOKEN_FILE holds is no refresh token: " + hintLogin,
		"AADSTS50173":   "the password was changed, or the consent taken back: " + hintLogin,
		"AADSTS50034":   "the directory does not have that user",
		"AADSTS50057":   "the account is disabled",
		"AADSTS50076":   hintFactor,
		"AADSTS50078":   hintFactor,
		"AADSTS50079":   hintFactor,
		"AADSTS53000":   hintPolicy,
		"AADSTS53003":   hintPolicy,
		"AADSTS65001":   hintAdmin,
		"AADSTS50105":   "the user is not assigned to the application",
		"AADSTS70011":   hintScope,
		"AADSTS1002012": hintScope + ": without a person it has to end in /.default",
		"AADSTS500011":  hintScope,
	}
}

var aadsts = regexp.MustCompile(`AADSTS\d+`)

// hint is what to do about a refusal, "" if that is not known.
func hint(p Provider, code, text string) string {
	if known := microsoftHints()[aadsts.FindString(text)]; known != "" {
		return known
	}
	switch code {
	case "invalid_grant":
		if p == Google && strings.Contains(text, "email or User ID") {
			return "see EMAIL_HOST_USER: the mailbox that the service account is to send as"
		}
		if strings.Contains(text, "JWT") || strings.Contains(text, "account not found") {
			return "see EMAIL_OAUTH_KEY_FILE, and this machine's clock"
		}
		return hintLogin
	case "invalid_client":
		return "see EMAIL_OAUTH_CLIENT_ID and EMAIL_OAUTH_CLIENT_SECRET"
	case "unauthorized_client": //nolint:misspell // RFC 6749, 5.2
		if p == Google {
			return "an administrator has to allow the service account the scope " + googleScope + " (domain-wide delegation)"
		}
		return hintAdmin
	case "invalid_scope":
		return hintScope
	}
	return ""
}
