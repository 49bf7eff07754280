// Package auth is the client's side of the mechanisms of a login (SASL, RFC 4422). It knows
// nothing of SMTP: it is given challenges and returns responses, and it takes our secrets out
// of what a server says.
package auth

import (
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // CRAM-MD5 is what it is; HMAC-MD5 is not broken by collisions
	"encoding/hex"
	"errors"
	"slices"

	"github.com/emersion/go-sasl"
)

// Credentials say who logs in, and where.
type Credentials struct {
	Username string
	Secret   string // password or token
	Host     string // the server's, which OAUTHBEARER names
	Port     int
}

// A mechanism is a way to log in. A new one is an entry in mechanisms.
type mechanism struct {
	name  string
	token bool // it wants an OAuth 2 access token, not a password
	start func(c Credentials) (sasl.Client, error)
}

// mechanisms are those that we know, strongest first.
func mechanisms() []mechanism {
	return []mechanism{
		{"SCRAM-SHA-256", false, newScramClient}, // RFC 7677
		{"CRAM-MD5", false, newCramMD5},          // RFC 2195
		{"PLAIN", false, newPlain},               // RFC 4616
		{"LOGIN", false, newLogin},               // draft-murchison-sasl-login
		{"OAUTHBEARER", true, newBearerClient},   // RFC 7628
		{"XOAUTH2", true, newXOAuth2Client},      // Google's forerunner of it
	}
}

// Passwords are the mechanisms that go with a password, strongest first.
func Passwords() []string { return names(false) }

// Tokens are those that go with an OAuth 2 access token.
func Tokens() []string { return names(true) }

func names(token bool) []string {
	var all []string
	for _, m := range mechanisms() {
		if m.token == token {
			all = append(all, m.name)
		}
	}
	return all
}

// Start begins a login. client answers the server's challenges. initial is what it has to say
// before the first; nil, not empty, if that is nothing.
func Start(mech string, c Credentials) (client sasl.Client, initial []byte, err error) {
	known := mechanisms()
	i := slices.IndexFunc(known, func(m mechanism) bool { return m.name == mech })
	if i < 0 {
		return nil, nil, errors.New("no such mechanism")
	}
	if client, err = known[i].start(c); err != nil {
		return nil, nil, err
	}
	_, initial, err = client.Start()
	return client, initial, err
}

// Verify is asked when the server has called the login successful. It returns ErrNoProof if the
// server had to prove who it is, and has not.
func Verify(client sasl.Client) error {
	if s, ok := client.(*scram); ok && !s.proven() {
		return ErrNoProof
	}
	return nil
}

func newScramClient(c Credentials) (sasl.Client, error) { return newScram(c.Username, c.Secret) }

func newBearerClient(c Credentials) (sasl.Client, error) {
	return newBearer(c.Username, c.Secret, c.Host, c.Port), nil
}

func newXOAuth2Client(c Credentials) (sasl.Client, error) {
	return newXOAuth2(c.Username, c.Secret), nil
}

// IsPrompted reports whether challenges to client are mere prompts, whose text means nothing: some
// servers do not even encode it.
func IsPrompted(client sasl.Client) bool {
	switch client.(type) {
	case *plain, *loginClient:
		return true
	}
	return false
}

// plain is RFC 4616. A server that asks, though it has the initial response, gets it again.
type plain struct{ response []byte }

func newPlain(c Credentials) (sasl.Client, error) {
	return &plain{[]byte("\x00" + c.Username + "\x00" + c.Secret)}, nil
}

func (m *plain) Start() (mech string, initial []byte, err error) { return "PLAIN", m.response, nil }

func (m *plain) Next([]byte) ([]byte, error) {
	if m.response == nil {
		return nil, errChallenge
	}
	answer := m.response
	m.response = nil
	return answer, nil
}

// cramMD5 is RFC 2195.
type cramMD5 struct{ user, password string }

func newCramMD5(c Credentials) (sasl.Client, error) {
	return &cramMD5{user: c.Username, password: c.Secret}, nil
}

func (m *cramMD5) Start() (mech string, initial []byte, err error) { return "CRAM-MD5", nil, nil }

func (m *cramMD5) Next(challenge []byte) ([]byte, error) {
	mac := hmac.New(md5.New, []byte(m.password))
	mac.Write(challenge)
	return []byte(m.user + " " + hex.EncodeToString(mac.Sum(nil))), nil
}

// loginClient answers the first challenge with the user and the second with the
// password, whatever they say: servers do not agree on the prompts.
type loginClient struct{ answers []string }

func newLogin(c Credentials) (sasl.Client, error) {
	return &loginClient{answers: []string{c.Username, c.Secret}}, nil
}

func (m *loginClient) Start() (mech string, initial []byte, err error) { return "LOGIN", nil, nil }

func (m *loginClient) Next([]byte) ([]byte, error) {
	if len(m.answers) == 0 {
		return nil, errChallenge
	}
	answer := m.answers[0]
	m.answers = m.answers[1:]
	return []byte(answer), nil
}
