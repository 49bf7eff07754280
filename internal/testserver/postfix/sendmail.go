package postfix

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// Sendmail hands in a message on this machine, by Postfix's own sendmail(1) with these arguments.
// What Postfix makes of it is delivered as any other.
func (s *Server) Sendmail(ctx context.Context, message []byte, args ...string) error {
	cmd := exec.CommandContext(ctx, s.system.sendmail, append([]string{"-C", s.path("conf")}, args...)...) //nolint:gosec // the path is Postfix's own
	cmd.Stdin = bytes.NewReader(message)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("postfixtest: sendmail: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
