# What is said of a secret or a template, wherever it is said.
{ lib }:
let
  inherit (lib) mkOption types;
  orNothing = type: description: example: mkOption {
    type = types.nullOr type;
    default = null;
    inherit description example;
  };
in
rec {
  actions = [ "none" "reload" "restart" "reload-or-restart" ];

  keeping = {
    cache = orNothing (types.enum [ "sealed" "memory" "never" ])
      "Where the value is kept, if not as `cache` says for all." "memory";
    freshFor = orNothing types.str "How long the value is served without asking 1Password." "1h";
    staleFor = orNothing types.str "How long the value is served when 1Password cannot be asked." "30d";
    alwaysFetch = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = "Never serve the value without asking 1Password.";
    };
  };

  onChange = mkOption {
    type = types.either (types.enum actions) (types.submodule {
      options.signal = mkOption {
        type = types.str;
        description = "The signal for the unit's main process.";
        example = "SIGHUP";
      };
    });
    default = "none";
    example = "restart";
    description = ''
      What to do with the unit when the value changes: `none`, `reload` (with systemd 260 and later that swaps the
      credential under the same process), `restart`, `reload-or-restart`, or `{ signal = "SIGHUP"; }`.
    '';
  };

  deadline = orNothing types.str ''
    How long the unit's start waits for the value before it is refused, if not as long as `deadline` says for all: a
    duration, or `infinity`. The unit's `serviceConfig.TimeoutStartSec` must be longer.
  '' "10m";

  templateFile = orNothing types.path "A file with the text, instead of `template`." (lib.literalExpression "./app.env");

  kind = mkOption {
    type = types.enum [ "field" "file" ];
    default = "field";
    example = "file";
    description = "Whether the reference names a text field or a file.";
  };

  file = {
    path = orNothing types.str "Where it is as a file: absolute, or below `outputDir`; `{service}` in it stands for a value of `variables` or `defaults`, and `{name}` for its name." "ssl/key.pem";
    owner = mkOption {
      type = types.str;
      default = "root";
      example = "caddy";
      description = "The file's owner, by name or number.";
    };
    group = orNothing types.str
      "The file's group, by name or number; else root's, and not the owner's own, which everybody may be in." "caddy";
    mode = mkOption {
      type = types.str;
      default = "0600";
      example = "0400";
      description = "The file's mode in 3 or 4 octal digits.";
    };
    symlinks = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "/etc/ssl/private/key.pem" ];
      description = "Absolute paths of links that point at the file.";
    };
    optional = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = "Whether the mirror, and the `services`, may go without this file.";
    };
    services = mkOption {
      type = types.either (types.listOf types.str) (types.attrsOf (types.submodule {
        options = {
          restart = mkOption {
            type = types.bool;
            default = true;
            example = false;
            description = "Restart the service when the file changes.";
          };
          signal = orNothing types.str "Send the service this signal instead." "SIGHUP";
          onChange = orNothing (types.enum [ "none" "reload" "restart" "reload-or-restart" ])
            "What to do with the service when the file changes, instead of `restart` and `signal`." "reload";
          after = mkOption {
            type = types.listOf types.str;
            default = [ "opnix-secrets.service" ];
            example = [ ];
            description = "Accepted as OpNix has it: services come after their files in any case.";
          };
        };
      }));
      default = [ ];
      example = [ "caddy" ];
      description = ''
        The services that read the file, without `.service`. They start when the file is there, not without it, and are
        restarted (or signalled) when it changes.
      '';
    };
    units = mkOption {
      type = types.listOf (types.either types.str (types.attrsOf types.anything));
      default = [ ];
      example = [ "opencode.service" "opencode@*.service" ];
      description = ''
        Units that may have it as a credential, under this name. They still need their `LoadCredential=`:
        `systemd.services.<name>.onepassword.credentials` writes both.
      '';
    };
  };

  secret = keeping // file // {
    inherit kind;
    reference = mkOption {
      type = types.str;
      example = "op://Infrastructure Secrets/OpenAI/credential";
      description = "Where the value is: `op://vault/item/[section/]field`.";
    };
    variables = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = { service = "caddy"; };
      description = "Values for `path` and `pathTemplate`.";
    };
  };

  template = keeping // file // {
    template = mkOption {
      type = types.nullOr types.lines;
      default = null;
      example = "OPENAI_API_KEY={{ op://Infrastructure Secrets/OpenAI/credential | env }}\n";
      description = "The text, with `{{ op://vault/item/field }}` where a secret goes; `| env` or `| json` quotes it.";
    };
    inherit templateFile;
  };

  # A module, for it has a name.
  credential = { name, ... }: {
    options = keeping // {
      inherit kind onChange deadline templateFile;
      reference = orNothing types.str "Where the value is: `op://vault/item/[section/]field`."
        "op://Infrastructure Secrets/OpenAI/credential";
      template = orNothing types.lines "A text with secrets in it, instead of `reference`."
        "https://user:{{ op://Vault/App/password }}@example.org\n";
      path = mkOption {
        type = types.str;
        readOnly = true;
        default = "%d/${name}";
        defaultText = "%d/<name>";
        description = "The credential's path in settings of its unit, such as `ExecStart` and `Environment`: computed. A script has `$CREDENTIALS_DIRECTORY` instead.";
      };
    };
  };
}
