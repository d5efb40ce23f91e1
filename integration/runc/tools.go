//go:build tools

// Package runc pins the runc that the conformance suite runs containers with: a newer one
// than a stable distribution has. Nothing is built from this file.
package runc

import (
	_ "github.com/opencontainers/runc"
)
