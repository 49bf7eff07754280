// Package baseline is the mail queue that people write with asynq when they write it
// themselves: the mail as JSON in the payload, and a handler that sends it.
package baseline

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"net/textproto"
	"strings"

	"github.com/hibiken/asynq"
)

// TaskType is the type of the tasks.
const TaskType = "email:send"

// Mail is the payload.
type Mail struct {
	From       string `json:"from"`
	To         string `json:"to"`
	Subject    string `json:"subject"`
	Body       string `json:"body"`
	Attachment []byte `json:"attachment,omitempty"` // as base64, which is what encoding/json makes of it
}

// Task is the mail as a task.
func (m Mail) Task() (*asynq.Task, error) {
	data, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return asynq.NewTask(TaskType, data), nil
}

// Read is the mail of a task.
func Read(task *asynq.Task) (Mail, error) {
	var m Mail
	if err := json.Unmarshal(task.Payload(), &m); err != nil {
		return m, fmt.Errorf("%w: %w", err, asynq.SkipRetry)
	}
	return m, nil
}

// Render is the mail as it is sent, with no more of MIME than it needs.
func (m Mail) Render() []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "From: %s\r\nTo: %s\r\nSubject: %s\r\nMIME-Version: 1.0\r\n", m.From, m.To, m.Subject)
	body := strings.ReplaceAll(m.Body, "\n", "\r\n")
	if m.Attachment == nil {
		fmt.Fprintf(&out, "Content-Type: text/plain; charset=utf-8\r\n\r\n%s", body)
		return out.Bytes()
	}
	parts := multipart.NewWriter(&out)
	fmt.Fprintf(&out, "Content-Type: multipart/mixed; boundary=%q\r\n\r\n", parts.Boundary())
	// Writing to a buffer cannot fail.
	text, _ := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {"text/plain; charset=utf-8"}})
	_, _ = text.Write([]byte(body))
	file, _ := parts.CreatePart(textproto.MIMEHeader{
		"Content-Type": {"application/octet-stream"}, "Content-Transfer-Encoding": {"base64"},
		"Content-Disposition": {`attachment; filename="data.bin"`},
	})
	encoded := base64.StdEncoding.EncodeToString(m.Attachment)
	for len(encoded) > 0 {
		n := min(len(encoded), 76)
		fmt.Fprintf(file, "%s\r\n", encoded[:n])
		encoded = encoded[n:]
	}
	_ = parts.Close()
	return out.Bytes()
}
