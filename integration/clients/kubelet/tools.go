//go:build tools

// Package kubelet pins the kubelet. Nothing is built from this file.
package kubelet

import _ "k8s.io/kubernetes/cmd/kubelet"
