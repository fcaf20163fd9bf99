mod interpreter;
mod isolator;
mod oracle;
mod profiles;
