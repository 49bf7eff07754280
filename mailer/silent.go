package mailer

import "context"

// Silent returns a backend that sends through b and hides its failures: SendMessages returns fewer
// messages sent instead of an error. Bad input (IsBadInput) stays an error, because its author can
// correct it. It is Django's fail_silently=True for any backend.
func Silent(b Backend) Backend { return silent{b} }

type silent struct{ Backend }

func (s silent) Open(ctx context.Context) (bool, error) {
	opened, _ := s.Backend.Open(ctx)
	return opened, nil
}

func (s silent) Close() error {
	_ = s.Backend.Close()
	return nil
}

func (s silent) SendMessages(ctx context.Context, messages []*EmailMessage) (int, error) {
	sent, err := s.Backend.SendMessages(ctx, messages)
	bad := make(SendErrors, len(messages))
	kept := false
	for i := range messages {
		if e := ErrorAt(err, i); e != nil && IsBadInput(e) {
			bad[i], kept = e, true
		}
	}
	if kept {
		return sent, bad
	}
	return sent, nil
}
