package smtp

import (
	"crypto/sha256"
	"slices"
	"strings"
	"sync"
)

// Logins is what backends know of the logins that they have tried: which mechanism works for a
// user at a server. Those of one process share it, so that they do not find out
// anew with each connection, for a server may count what it refuses. The zero value knows nothing.
type Logins struct {
	mu    sync.Mutex
	known map[[sha256.Size]byte]*knownLogin
}

// knownLogin is what is known of one user's password at one server.
type knownLogin struct {
	works    string   // the mechanism that has worked last
	explored bool     // another mechanism was tried after the password was refused with one
	refused  []string // the mechanisms that it was refused with, since one worked
}

// maxKnownLogins is how many logins are remembered, in a program that logs in as its users.
const maxKnownLogins = 1000

// of calls f with what is known of a login.
func (l *Logins) of(addr, user, secret string, f func(*knownLogin)) {
	key := sha256.Sum256([]byte(strings.Join([]string{addr, user, secret}, "\x00")))
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.known[key]
	if k == nil {
		if l.known == nil || len(l.known) >= maxKnownLogins {
			l.known = map[[sha256.Size]byte]*knownLogin{}
		}
		k = &knownLogin{}
		l.known[key] = k
	}
	f(k)
}

// order returns the mechanisms in the order to try them: the one that has worked first, and those last that the
// password was refused with.
func (k *knownLogin) order(mechanisms []string) []string {
	rank := func(mech string) int {
		switch {
		case mech == k.works:
			return -1
		case slices.Contains(k.refused, mech):
			return 1
		}
		return 0
	}
	ordered := slices.Clone(mechanisms)
	slices.SortStableFunc(ordered, func(a, b string) int { return rank(a) - rank(b) })
	return ordered
}

// worked notes that a mechanism has worked.
func (k *knownLogin) worked(mech string) { k.works, k.refused = mech, nil }

// wrong notes that the password was refused, and reports whether another mechanism may be tried at once. It
// may only the first time: a mechanism that a server offers may refuse every password, and then another one
// works; but mostly the password is wrong, and each further attempt counts against the account. Later attempts use
// one mechanism each, in turns.
func (k *knownLogin) wrong(mech string, of int) (another bool) {
	if k.works == mech {
		k.works = "" // perhaps it does no longer
	}
	k.refused = append(k.refused, mech)
	if len(k.refused) >= of {
		k.refused = nil // each has had its turn
	}
	another = !k.explored
	k.explored = true
	return another
}
