// Package provider is an OAuth 2 provider for tests: it gives access tokens for client credentials, refresh tokens, device codes, codes
// of a browser and the assertions of service accounts, says what they are worth (RFC 7662), and fails as a test wants it.
package provider

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Who may ask, and for whom tokens are.
const (
	ClientID     = "client-id"
	ClientSecret = "cl1ent-secret-of-the-app"
	User         = "shop@example.com"
	Account      = "robot@project.iam.example.com"
)

// Paths of the endpoints.
const (
	TokenPath      = "/token"
	DevicePath     = "/device"
	IntrospectPath = "/introspect"
)

// Provider is a provider. Its exported fields are set before it is used.
type Provider struct {
	Life   time.Duration // of access tokens: an hour if 0, not said if negative
	Rotate bool          // give another refresh token at each refresh, and take none twice
	Public bool          // the application has no secret

	// Fail, if not nil, may answer a request to the token endpoint instead of the provider: with a status other than 0 and a body.
	Fail func(form url.Values) (status int, body string)

	key *rsa.PrivateKey // of the service account

	mu       sync.Mutex
	forms    []url.Values
	access   map[string]time.Time // until when they are good
	refresh  map[string]bool
	device   string // the code; "" before and after its use
	pending  int    // polls that are answered with authorization_pending
	slow     int    // and before, with slow_down
	verdict  string // what they are answered then; "" is a token
	polls    []time.Time
	verifier string // the challenge that the code of a browser belongs to
	made     int
}

// New returns a provider that knows one refresh token: FirstRefresh.
func New() *Provider {
	return &Provider{access: map[string]time.Time{}, refresh: map[string]bool{FirstRefresh: true}}
}

// FirstRefresh is the refresh token that is there from the beginning.
const FirstRefresh = "refresh-token-0-keep-me-hidden"

// Start serves the provider on this machine, and returns the URL that its paths follow.
func (p *Provider) Start(t testing.TB) string {
	t.Helper()
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	return server.URL
}

// Client returns a client that reaches the provider, whatever the host, without a network: time may be fake.
func (p *Provider) Client() *http.Client { return &http.Client{Transport: direct{p}} }

type direct struct{ http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w.Result(), nil
}

// ServeHTTP implements http.Handler.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil || r.Method != http.MethodPost {
		http.Error(w, "a form is expected", http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch r.URL.Path {
	case TokenPath:
		p.token(w, r)
	case DevicePath:
		p.newDevice(w, r.Form)
	case IntrospectPath:
		p.introspect(w, r.Form.Get("token"))
	default:
		http.NotFound(w, r)
	}
}

func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	form := maps.Clone(r.Form)
	id, secret, basic := r.BasicAuth()
	if !basic {
		id, secret = form.Get("client_id"), form.Get("client_secret")
	}
	p.forms = append(p.forms, form)
	if p.Fail != nil {
		if status, body := p.Fail(form); status != 0 {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = fmt.Fprint(w, body)
			return
		}
	}
	grant := form.Get("grant_type")
	if grant != "urn:ietf:params:oauth:grant-type:jwt-bearer" && (id != ClientID || secret != ClientSecret && (!p.Public || secret != "")) {
		refuse(w, http.StatusUnauthorized, "invalid_client", "AADSTS7000215: Invalid client secret provided: '"+secret+"'. Trace ID: 1-2-3 Timestamp: now")
		return
	}
	switch grant {
	case "client_credentials":
		p.give(w, "")
	case "refresh_token":
		old := form.Get("refresh_token")
		if !p.refresh[old] {
			refuse(w, http.StatusBadRequest, "invalid_grant", "AADSTS700082: The refresh token '"+old+"' has expired due to inactivity.\r\nTrace ID: 1")
			return
		}
		if p.Rotate {
			delete(p.refresh, old)
			p.give(w, p.newRefresh())
			return
		}
		p.give(w, "")
	case "urn:ietf:params:oauth:grant-type:device_code":
		p.poll(w, form.Get("device_code"))
	case "authorization_code":
		sum := sha256.Sum256([]byte(form.Get("code_verifier")))
		if form.Get("code") != "browser-code" || base64.RawURLEncoding.EncodeToString(sum[:]) != p.verifier {
			refuse(w, http.StatusBadRequest, "invalid_grant", "the code is wrong")
			return
		}
		p.give(w, p.newRefresh())
	case "urn:ietf:params:oauth:grant-type:jwt-bearer":
		if why := p.assertion(form.Get("assertion")); why != "" {
			refuse(w, http.StatusBadRequest, "invalid_grant", why)
			return
		}
		p.give(w, "")
	default:
		refuse(w, http.StatusBadRequest, "unsupported_grant_type", grant)
	}
}

func refuse(w http.ResponseWriter, status int, code, description string) {
	answer(w, status, map[string]any{"error": code, "error_description": description})
}

func answer(w http.ResponseWriter, status int, body map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func (p *Provider) newRefresh() string {
	p.made++
	token := fmt.Sprintf("refresh-token-%d-keep-me-hidden", p.made)
	p.refresh[token] = true
	return token
}

// give answers with a new access token.
func (p *Provider) give(w http.ResponseWriter, refresh string) {
	p.made++
	token, life := fmt.Sprintf("access-token-%d-%s", p.made, rand.Text()), p.Life
	if life == 0 {
		life = time.Hour
	}
	body := map[string]any{"access_token": token, "token_type": "Bearer"}
	p.access[token] = time.Now().Add(100 * time.Hour)
	if life > 0 {
		p.access[token] = time.Now().Add(life)
		body["expires_in"] = int(life.Seconds())
	}
	if refresh != "" {
		body["refresh_token"] = refresh
	}
	answer(w, http.StatusOK, body)
}

// introspect says for whom a token is, if it is good.
func (p *Provider) introspect(w http.ResponseWriter, token string) {
	if !time.Now().Before(p.access[token]) {
		answer(w, http.StatusOK, map[string]any{"active": false})
		return
	}
	answer(w, http.StatusOK, map[string]any{"active": true, "username": User})
}

// Good reports whether a token is.
func (p *Provider) Good(token string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Before(p.access[token])
}

// Revoke ends all access tokens.
func (p *Provider) Revoke() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.access)
}

// RevokeRefresh ends all refresh tokens.
func (p *Provider) RevokeRefresh() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.refresh)
}

// Allow makes a refresh token a good one.
func (p *Provider) Allow(refresh string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refresh[refresh] = true
}

// AllowsRefresh reports whether a refresh token is good.
func (p *Provider) AllowsRefresh(token string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refresh[token]
}

// Forms are what the token endpoint was sent.
func (p *Provider) Forms() []url.Values {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.forms)
}

// Device is how polls for the token of a device code are answered: so often slow_down, then so often authorization_pending, and then with
// a token, or with the error code verdict.
func (p *Provider) Device(slow, pending int, verdict string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slow, p.pending, p.verdict = slow, pending, verdict
}

// Polls are the times of these polls.
func (p *Provider) Polls() []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.polls)
}

// DeviceLife and DeviceInterval are how long a device code is good, and how often it may be asked for, in seconds.
const (
	DeviceLife     = 120
	DeviceInterval = 2
)

func (p *Provider) newDevice(w http.ResponseWriter, form url.Values) {
	if form.Get("client_id") != ClientID {
		refuse(w, http.StatusUnauthorized, "invalid_client", "no such application")
		return
	}
	p.device = "device-code-" + rand.Text()
	answer(w, http.StatusOK, map[string]any{
		"device_code": p.device, "user_code": "ABCD-EFGH", "verification_uri": "https://login.example.com/device",
		"expires_in": DeviceLife, "interval": DeviceInterval,
	})
}

func (p *Provider) poll(w http.ResponseWriter, code string) {
	p.polls = append(p.polls, time.Now())
	switch {
	case p.device == "" || code != p.device:
		refuse(w, http.StatusBadRequest, "invalid_grant", "the device code is wrong")
	case p.slow > 0:
		p.slow--
		refuse(w, http.StatusBadRequest, "slow_down", "")
	case p.pending > 0:
		p.pending--
		refuse(w, http.StatusBadRequest, "authorization_pending", "")
	case p.verdict != "":
		refuse(w, http.StatusBadRequest, p.verdict, "")
	default:
		p.device = ""
		p.give(w, p.newRefresh())
	}
}

// Agree is a person's browser at the address that it was shown: it agrees, and calls the program with a code. It returns what
// the program answers.
func (p *Provider) Agree(address string) (status int, err error) {
	u, err := url.Parse(address)
	if err != nil {
		return 0, err
	}
	q := u.Query()
	p.mu.Lock()
	p.verifier = q.Get("code_challenge")
	p.mu.Unlock()
	back := q.Get("redirect_uri") + "/?" + url.Values{"state": {q.Get("state")}, "code": {"browser-code"}}.Encode()
	reply, err := http.Get(back) //nolint:gosec,noctx // our own program
	if err != nil {
		return 0, err
	}
	http.DefaultClient.CloseIdleConnections()
	return reply.StatusCode, reply.Body.Close()
}

// ServiceAccount returns the JSON file of a service account that the provider knows.
func (p *Provider) ServiceAccount(t testing.TB) []byte {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p.key = key
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": Account, "private_key_id": "key-1",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// assertion says what is wrong with one (RFC 7523, 3), "" if nothing.
func (p *Provider) assertion(text string) string {
	parts := strings.Split(text, ".")
	if len(parts) != 3 || p.key == nil {
		return "Invalid JWT"
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err != nil || rsa.VerifyPKCS1v15(&p.key.PublicKey, crypto.SHA256, sum[:], signature) != nil {
		return "Invalid JWT Signature."
	}
	var claims struct {
		Iss, Sub, Scope, Aud string
		Exp                  int64
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(body, &claims) != nil {
		return "Invalid JWT"
	}
	if claims.Iss != Account || claims.Sub != User || claims.Scope != "https://mail.google.com/" || !strings.HasSuffix(claims.Aud, TokenPath) || claims.Exp <= time.Now().Unix() {
		return fmt.Sprintf("Invalid claims %+v", claims)
	}
	return ""
}

// Know makes an access token a good one.
func (p *Provider) Know(token string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.access[token] = time.Now().Add(time.Hour)
}
