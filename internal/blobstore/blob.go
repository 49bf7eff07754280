package blobstore

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// Blob names a content.
type Blob struct {
	Hash string // of the content: see Hash
	Size int    // bytes
}

// Hash is the SHA-256 of a content, in hex.
func Hash(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// FaultError says that a content is lost.
type FaultError struct {
	Blob  Blob
	Fault string // "not in Redis any more"
}

func (e *FaultError) Error() string {
	return fmt.Sprintf("its content (sha256 %s, %d octets) is %s", e.Blob.Hash, e.Blob.Size, e.Fault)
}

// The faults of a blob.
const (
	missing = "not in Redis any more"
	damaged = "damaged in Redis"
)

// Ref is a reference: the key of asynq's record of a task, and a token that tells apart the
// tasks which have that key one after the other.
func Ref(taskKey, token string) string { return taskKey + "#" + token }

// taskOf is the key of the task that a reference is for.
func taskOf(ref string) string { return ref[:max(strings.LastIndexByte(ref, '#'), 0)] }

// The keys.
const index = "mailpouch:blobs"

func blobKey(hash string) string { return "mailpouch:{" + hash + "}:blob" }
func refsKey(hash string) string { return "mailpouch:{" + hash + "}:refs" }
