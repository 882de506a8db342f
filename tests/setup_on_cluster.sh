#!/bin/bash
# Tests doctor, both profiles of setup, a user with the shipped permissions, and uninstall on a real cluster. Prints one line for
# each step, and fails if a step does not have the expected result. Needs kubectl and openssl.
#
#   KUBECONFIG=FILE NODE=NAME IMAGE=REPOSITORY@sha256:DIGEST tests/setup_on_cluster.sh target/debug/gpu-syringe
#
# The kubeconfig must be that of a cluster-admin, and the cluster must sign client certificates. Namespace gpu-syringe must not
# exist. The node must have the image, and must run a privileged container whose image has a shell and a C library. node-probe must
# be in the same folder as gpu-syringe.
set -uo pipefail
program=$(realpath "$1")
admin=$(realpath "$KUBECONFIG")
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
user=gpu-syringe-proof
failed=0

# The program gets no environment variable of this shell except the kubeconfig.
run() { # kubeconfig, arguments…
    local kubeconfig=$1
    shift
    env -i PATH=/usr/bin:/bin HOME="$home" KUBECONFIG="$kubeconfig" "$program" --allow-nodes '*' "$@" > "$home/out" 2> "$home/err"
}

# step NAME EXPECTED-EXIT-STATUS PATTERN: checks the last run.
step() {
    local code=$?
    if [ "$code" = "$2" ] && grep -qE -- "$3" "$home/out" "$home/err"; then
        printf 'ok    %s (exit status %s)\n' "$1" "$code"
    else
        printf 'WRONG %s: exit status %s instead of %s, or no output that matches %s\n' "$1" "$code" "$2" "$3"
        head -c 1500 "$home/out" "$home/err"
        failed=1
    fi
}

# Creates a kubeconfig of a user who has a certificate, but no permission.
make_user() {
    openssl req -new -newkey rsa:2048 -nodes -keyout "$home/key" -subj "/CN=$user" -out "$home/csr" 2> /dev/null
    kubectl delete csr "$user" --ignore-not-found > /dev/null
    kubectl create --validate=false -f - > /dev/null << EOF
{"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "$user"},
 "spec": {"request": "$(base64 -w0 < "$home/csr")", "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}}
EOF
    kubectl certificate approve "$user" > /dev/null
    local n
    for n in $(seq 50); do
        kubectl get csr "$user" -o jsonpath='{.status.certificate}' | base64 -d > "$home/crt"
        [ -s "$home/crt" ] && break
        sleep 0.2
    done
    kubectl delete csr "$user" > /dev/null
    cp "$admin" "$home/user" && chmod 600 "$home/user"
    KUBECONFIG=$home/user kubectl config set-credentials "$user" --client-certificate="$home/crt" --client-key="$home/key" --embed-certs > /dev/null
    KUBECONFIG=$home/user kubectl config set-context --current --user="$user" > /dev/null
}

export KUBECONFIG=$admin
make_user

run "$admin" -o json doctor
step "administrator: doctor before the set-up" 1 '"id":"namespace","status":"failure".*gpu-syringe setup --apply'
run "$home/user" -o json doctor
step "user: doctor without any permission" 1 '"id":"permission-probe-create-pods","status":"failure".*setup --apply --user '$user
run "$home/user" setup --apply --yes --profile trial
step "user: setup is refused, nothing is changed" 3 'must run the setup command'
run "$admin" setup --apply --yes --profile trial --user "$user"
step "administrator: setup, profile trial" 0 'RoleBinding'
run "$admin" setup --apply --yes --profile trial --user "$user"
step "administrator: the same again changes nothing" 0 '"result":"unchanged"'
run "$admin" --fail-on never -o json diagnose "$NODE"
step "administrator: diagnose without an image" 0 '"via":"inject"'
run "$home/user" -o json doctor
step "user: doctor, profile trial" 0 '"id":"policy","status":"warning"'
run "$home/user" --fail-on never -o json diagnose "$NODE"
step "user: diagnose without an image" 0 '"via":"inject"'
run "$home/user" -o json doctor --node "$NODE"
step "user: doctor --node" 0 '"timings_ms"'
run "$home/user" -o json setup --uninstall --yes
step "user: uninstall is refused" 3 'forbidden'
run "$admin" --image "$IMAGE" setup --apply --yes --profile hardened
step "administrator: setup, profile hardened" 0 'ValidatingAdmissionPolicy'
run "$home/user" --image "$IMAGE" -o json doctor --node "$NODE"
step "user: doctor, profile hardened" 0 '"id":"policy","status":"ok"'
run "$home/user" --image "$IMAGE" --fail-on never -o json diagnose "$NODE"
step "user: diagnose with the image" 0 '"via":"pod"'
run "$home/user" --fail-on never -o json diagnose "$NODE"
step "user: diagnose without any setting: the image of the policy is used" 0 '"via":"pod"'
run "$home/user" --image "${IMAGE%@*}@sha256:$(printf '0%.0s' $(seq 64))" --fail-on never -o json diagnose "$NODE"
step "user: diagnose with another image: what the API knows, the reason and its fix" 0 '"via":"none".*gpu-syringe-probe-only.*gpu-syringe setup --apply --profile hardened'
run "$home/user" --via inject --fail-on never -o json diagnose "$NODE"
step "user: inject is refused by the policy" 0 'gpu-syringe-probe-only'
run "$admin" setup --apply --yes --profile trial
step "administrator: the policy is not removed without --remove-policy" 2 'remove-policy'
run "$admin" setup --apply --yes
step "administrator: setup without arguments keeps the profile" 0 '"profile":"hardened"'
run "$admin" setup --uninstall --yes
step "administrator: uninstall" 0 '"kind":"Namespace","name":"gpu-syringe","result":"deleted"'
kinds=namespaces,clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings
left=$(kubectl get "$kinds" -o name | grep -E '/gpu-syringe(-(read|ephemeral|probe-only|exec-only|nothing-else))?$')
[ -z "$left" ]
step "nothing is left" 0 ''
[ -z "$left" ] || echo "$left"
exit $failed
