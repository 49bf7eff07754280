package smtp

import (
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // CRAM-MD5 is what it is; HMAC-MD5 is not broken by collisions
	"encoding/hex"
	"errors"
)

var errChallenge = errors.New("a challenge that does not belong here")

// cramMD5 is RFC 2195.
type cramMD5 struct{ user, password string }

func (m *cramMD5) Start() (mech string, initial []byte, err error) { return mechCramMD5, nil, nil }

func (m *cramMD5) Next(challenge []byte) ([]byte, error) {
	mac := hmac.New(md5.New, []byte(m.password))
	mac.Write(challenge)
	return []byte(m.user + " " + hex.EncodeToString(mac.Sum(nil))), nil
}

// loginClient answers the first challenge with the user and the second with the
// password, whatever they say: servers do not agree on the prompts.
type loginClient struct{ answers []string }

func (m *loginClient) Start() (mech string, initial []byte, err error) { return mechLogin, nil, nil }

func (m *loginClient) Next([]byte) ([]byte, error) {
	if len(m.answers) == 0 {
		return nil, errChallenge
	}
	answer := m.answers[0]
	m.answers = m.answers[1:]
	return []byte(answer), nil
}

// xoauth2 sends the token at once. A challenge is the server's error as JSON; the
// empty answer makes it say so in a reply.
type xoauth2 struct{ user, token string }

func (m *xoauth2) Start() (mech string, initial []byte, err error) {
	return mechXOAuth2, []byte("user=" + m.user + "\x01auth=Bearer " + m.token + "\x01\x01"), nil
}

func (m *xoauth2) Next([]byte) ([]byte, error) { return nil, nil }
