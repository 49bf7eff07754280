package auth

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"

	"golang.org/x/text/secure/precis"
)

// Iterations that a server may ask for: fewer would make a stolen exchange cheap
// to attack (RFC 7677, 4), more would keep us busy for seconds.
const (
	minIterations = 4096
	maxIterations = 2_000_000
)

// ErrNoProof is why a login that the server calls successful is none.
var ErrNoProof = errors.New("the server did not prove that it knows the password")

var errChallenge = errors.New("a challenge that does not belong here")

// scram is SCRAM-SHA-256 (RFC 5802, RFC 7677) without channel binding. The password
// does not cross the wire, and the server must prove that it knows it too.
type scram struct {
	user, password string
	nonce          string
	first          string // client-first-message-bare
	signature      []byte // what the server has to send
	step           int
	ok             bool
}

func newScram(user, password string) (*scram, error) {
	s := &scram{nonce: rand.Text()}
	var err error
	// OpaqueString (RFC 8265) is SASLprep's successor and the same for nearly all.
	if s.user, err = precis.OpaqueString.String(user); err != nil {
		return nil, errors.New("the user name has characters that cannot be used")
	}
	if s.password, err = precis.OpaqueString.String(password); err != nil {
		return nil, errors.New("the password has characters that cannot be used")
	}
	return s, nil
}

func (s *scram) Start() (mech string, initial []byte, err error) {
	name := strings.NewReplacer("=", "=3D", ",", "=2C").Replace(s.user)
	s.first = "n=" + name + ",r=" + s.nonce
	return "SCRAM-SHA-256", []byte("n,," + s.first), nil
}

func (s *scram) Next(challenge []byte) ([]byte, error) {
	s.step++
	switch s.step {
	case 1:
		return s.final(string(challenge))
	case 2:
		return nil, s.verify(challenge)
	}
	return nil, errChallenge
}

// proven reports whether the server has shown that it knows the password.
func (s *scram) proven() bool { return s.ok }

// final answers the server-first-message "r=nonce,s=salt,i=iterations" with the
// client-final-message (RFC 5802, 3).
func (s *scram) final(challenge string) ([]byte, error) {
	fields := strings.SplitN(challenge, ",", 4) // extensions may follow
	if len(fields) < 3 {
		return nil, errChallenge
	}
	nonce, ok1 := strings.CutPrefix(fields[0], "r=")
	salt64, ok2 := strings.CutPrefix(fields[1], "s=")
	count, ok3 := strings.CutPrefix(fields[2], "i=")
	salt, err1 := base64.StdEncoding.DecodeString(salt64)
	iterations, err2 := strconv.Atoi(count)
	if !ok1 || !ok2 || !ok3 || err1 != nil || err2 != nil {
		return nil, errChallenge
	}
	if len(nonce) <= len(s.nonce) || !strings.HasPrefix(nonce, s.nonce) {
		return nil, errors.New("the server's nonce does not continue ours")
	}
	if iterations < minIterations || iterations > maxIterations {
		return nil, errors.New("the server wants " + count + " iterations")
	}
	salted, err := pbkdf2.Key(sha256.New, s.password, salt, iterations, sha256.Size)
	if err != nil {
		return nil, err
	}
	withoutProof := "c=" + base64.StdEncoding.EncodeToString([]byte("n,,")) + ",r=" + nonce
	message := s.first + "," + challenge + "," + withoutProof
	clientKey := sign(salted, "Client Key")
	storedKey := sha256.Sum256(clientKey)
	proof := sign(storedKey[:], message)
	for i := range proof {
		proof[i] ^= clientKey[i]
	}
	s.signature = sign(sign(salted, "Server Key"), message)
	return []byte(withoutProof + ",p=" + base64.StdEncoding.EncodeToString(proof)), nil
}

// verify checks the server-final-message "v=signature".
func (s *scram) verify(challenge []byte) error {
	value, ok := bytes.CutPrefix(challenge, []byte("v="))
	got, err := base64.StdEncoding.DecodeString(string(value))
	if s.ok = ok && err == nil && hmac.Equal(got, s.signature); !s.ok {
		return ErrNoProof
	}
	return nil
}

func sign(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}
