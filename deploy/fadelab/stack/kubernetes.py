POD_CREDENTIALS = ""


def manifests(c):
    return ""
