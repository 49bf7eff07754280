package pages

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/mailpouch/mailpouch/internal/ownhost"
	"github.com/mailpouch/mailpouch/settings"
)

// guard decides who may see the pages.
type guard struct {
	keys     atomic.Pointer[keys]
	hosts    []string // names that are ours beside loopback
	loopback bool     // we listen on loopback alone
}

// keys open the pages.
type keys struct {
	password, token *[sha256.Size]byte // hashes, which have one length; nil: none is set
}

func newGuard(password, token settings.Secret, hosts []string, loopback bool) *guard {
	g := &guard{loopback: loopback}
	g.set(password, token)
	for _, host := range hosts {
		g.hosts = append(g.hosts, strings.ToLower(host))
	}
	return g
}

// set puts a password and a token in the place of those before.
func (g *guard) set(password, token settings.Secret) {
	k := new(keys)
	if p := password.Reveal(); p != "" {
		k.password = new(sha256.Sum256([]byte(p)))
	}
	if t := token.Reveal(); t != "" {
		k.token = new(sha256.Sum256([]byte(t)))
	}
	g.keys.Store(k)
}

// open reports whether the pages ask for no password.
func (g *guard) open() bool {
	k := g.keys.Load()
	return k.password == nil && k.token == nil
}

// knows reports whether the request has the password, with any user name, or the token.
func (g *guard) knows(r *http.Request) bool {
	k := g.keys.Load()
	if k.password == nil && k.token == nil {
		return true
	}
	_, password, _ := r.BasicAuth()
	kind, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(kind, "Bearer") {
		token = ""
	}
	// Both are compared, so that the time does not tell which is set.
	byPassword, byToken := same(k.password, password), same(k.token, strings.TrimSpace(token))
	return byPassword || byToken
}

// same compares in a time that does not depend on where they differ, nor on the length.
func same(hash *[sha256.Size]byte, given string) bool {
	sum := sha256.Sum256([]byte(given))
	return hash != nil && subtle.ConstantTimeCompare(hash[:], sum[:]) == 1
}

// isOurs reports whether the request names us as its host. A server beyond loopback accepts
// every name, unless some are set: it has a password, which a browser does not send to a
// name that it does not know.
func (g *guard) isOurs(r *http.Request) bool {
	host := ownhost.Name(r)
	return slices.Contains(g.hosts, host) || ownhost.IsLoopback(host) || !g.loopback && len(g.hosts) == 0
}

// trusts reports whether the request may see everything.
func (g *guard) trusts(r *http.Request) bool { return g.isOurs(r) && g.knows(r) }

// protect asks everybody who they are.
func (g *guard) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !g.isOurs(r):
			http.Error(w, "This is not a name of this worker. EMAIL_HTTP_HOSTS names those that are.", http.StatusMisdirectedRequest)
		case !g.knows(r):
			if g.keys.Load().password != nil {
				w.Header().Set("WWW-Authenticate", `Basic realm="Mailpouch", charset="UTF-8"`)
			} else {
				w.Header().Set("WWW-Authenticate", `Bearer realm="Mailpouch"`)
			}
			http.Error(w, "A password is needed.", http.StatusUnauthorized)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// harden sets the headers that protect a browser against other sites.
func harden(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// readOnly refuses every request that would change something.
func readOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "These pages change nothing. EMAIL_HTTP_ALLOW_WRITE lets them.", http.StatusMethodNotAllowed)
			return
		}
		next.ServeHTTP(w, r)
	})
}
