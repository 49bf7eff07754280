package auth

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/emersion/go-sasl"
)

// A tokenClient logs in with an OAuth 2 access token, which it sends at once. The server says why it refuses it
// in a challenge of JSON. That is answered, as it has to be, with nothing or what stands for it; then
// comes the reply.
type tokenClient struct {
	mech    string
	initial string
	dummy   string // the answer to the challenge
	refusal refusal
}

// refusal is why a server refuses a token (RFC 7628, 3.2.2). XOAUTH2 has the same.
type refusal struct {
	Status string `json:"status"`
	Scope  string `json:"scope"`
}

// newBearer is RFC 7628. Its answer is the separator alone (3.2.3).
func newBearer(user, token, host string, port int) *tokenClient {
	user = strings.NewReplacer("=", "=3D", ",", "=2C").Replace(user) // RFC 5801, 4
	return &tokenClient{
		mech: "OAUTHBEARER", dummy: "\x01",
		initial: "n,a=" + user + ",\x01host=" + host + "\x01port=" + strconv.Itoa(port) + "\x01auth=Bearer " + token + "\x01\x01",
	}
}

// newXOAuth2 is Google's forerunner of it.
func newXOAuth2(user, token string) *tokenClient {
	return &tokenClient{mech: "XOAUTH2", initial: "user=" + user + "\x01auth=Bearer " + token + "\x01\x01"}
}

func (t *tokenClient) Start() (mech string, initial []byte, err error) {
	return t.mech, []byte(t.initial), nil
}

func (t *tokenClient) Next(challenge []byte) ([]byte, error) {
	_ = json.Unmarshal(challenge, &t.refusal) // it refuses us, whatever it says
	return []byte(t.dummy), nil
}

// Reason returns what a server has said of a token beside its reply, "" if nothing.
func Reason(client sasl.Client) string {
	t, ok := client.(*tokenClient)
	if !ok {
		return ""
	}
	var said []string
	if t.refusal.Status != "" {
		said = append(said, "status "+t.refusal.Status)
	}
	if t.refusal.Scope != "" {
		said = append(said, "scope "+t.refusal.Scope)
	}
	const most = 200
	text := strings.Join(said, ", ")
	return text[:min(len(text), most)]
}
