package catcher

import (
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// AuthMechanisms lists what EHLO offers (smtp.AuthSession).
func (s *session) AuthMechanisms() []string {
	if s.server.cfg.Login == nil {
		return nil
	}
	return []string{sasl.Plain, sasl.Login}
}

// Auth begins a login (smtp.AuthSession).
func (s *session) Auth(mech string) (sasl.Server, error) {
	if s.server.cfg.Login == nil {
		return nil, smtp.ErrAuthUnsupported
	}
	switch mech {
	case sasl.Plain:
		return sasl.NewPlainServer(func(_, username, password string) error {
			return s.login(username, password)
		}), nil
	case sasl.Login:
		return &loginServer{login: s.login}, nil
	}
	return nil, smtp.ErrAuthUnknownMechanism
}

func (s *session) login(username, password string) error {
	if err := s.server.cfg.Login(username, password); err != nil {
		return smtp.ErrAuthFailed
	}
	s.username = username
	return nil
}

// loginServer is the server's side of LOGIN (draft-murchison-sasl-login): two
// questions, of which a client may answer the first unasked.
type loginServer struct {
	login    func(username, password string) error
	username *string // nil until it is known
}

// Next takes an answer and returns the next question (sasl.Server).
func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case response == nil:
		return []byte("Username:"), false, nil
	case l.username == nil:
		username := string(response)
		l.username = &username
		return []byte("Password:"), false, nil
	}
	return nil, true, l.login(*l.username, string(response))
}
